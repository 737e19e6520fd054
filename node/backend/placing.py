"""Which frontend makes a connection: one that reaches the address, is not being drained, and has the least to do."""

from collections.abc import Iterable

from node.backend.links import FrontendLink
from node.errors import Refused
from node.link.messages import OWN_PROXY, PROXIES, Dialling
from node.runtime.addresses import Kind, kind_of
from node.runtime.tor_config import TorConfig


def dialling(tor: TorConfig) -> Dialling:
    """What frontends are told of the configuration."""
    ways = {kind: getattr(tor, kind) for kind in ("ipv4", "ipv6", "dns")}
    if tor.only:
        ways = {kind: "proxy" if way == "direct" else way for kind, way in ways.items()}
    return Dialling(socks=tor.socks, onion=tor.onion, isolate=tor.isolate, only=tor.only, **ways)


def place(links: Iterable[FrontendLink], address: str, dialling: Dialling) -> FrontendLink:
    """Raises Refused where no frontend will do, saying why."""
    all_ = list(links)
    if not all_:
        raise Refused("no frontend is connected")
    able = [link for link in all_ if _reaches(link, address, dialling)]
    if not able:
        raise Refused(_why_none(kind_of(address), dialling))
    serving = [link for link in able if not link.draining]
    if not serving:
        raise Refused("every frontend that could is being drained")
    return min(serving, key=lambda link: (not link.writable, len(link.sessions) + len(link.dials)))


def is_reached(links: Iterable[FrontendLink], address: str, dialling: Dialling) -> bool:
    """Whether any frontend could dial it."""
    return any(_reaches(link, address, dialling) for link in links)


def _reaches(link: FrontendLink, address: str, dialling: Dialling) -> bool:
    kind = kind_of(address)
    way = dialling.way(kind)
    if (
        PROXIES not in link.capabilities
    ):  # an older release: it dials all that it is told to, and never through a proxy
        known = frozenset(("ipv4", "ipv6")).intersection(link.capabilities) or ("ipv4", "ipv6")
        return way == "direct" and (kind in known or kind in ("dns", None))
    if way == "proxy" and not (dialling.socks or OWN_PROXY in link.capabilities):
        return False
    return way != "never" and (kind is None or kind in link.capabilities)


def _why_none(kind: Kind | None, dialling: Dialling) -> str:
    match dialling.way(kind):
        case "never":
            return f"{kind} addresses are not dialled (tor.{kind}: never)"
        case "proxy" if not dialling.socks:
            return f"no frontend reaches {kind} addresses; name a SOCKS proxy in tor.socks"
        case _:
            return f"no frontend reaches {kind} addresses; see `reaches` of the frontends"
