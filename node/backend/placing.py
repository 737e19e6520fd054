"""Which frontend makes a connection: one that reaches the address, is not being drained, and has the least to do."""

import ipaddress
from collections.abc import Iterable

from node.backend.links import FrontendLink
from node.errors import Refused

REACHES = frozenset(("ipv4", "ipv6", "tor"))


def place(links: Iterable[FrontendLink], address: str) -> FrontendLink:
    """Raises Refused where no frontend will do, saying why."""
    all_ = list(links)
    if not all_:
        raise Refused("no frontend is connected")
    needed = network(address)
    able = [link for link in all_ if needed is None or needed in _reaches(link)]
    if not able:
        raise Refused(f"no frontend reaches {needed} addresses")
    serving = [link for link in able if not link.draining]
    if not serving:
        raise Refused("every frontend that could is being drained")
    return min(serving, key=lambda link: (not link.writable, len(link.sessions) + len(link.dials)))


def network(address: str) -> str | None:
    """What a frontend must reach for this address; None: any may try."""
    host = address.rpartition(":")[0].strip("[]")
    if host.endswith(".onion"):
        return "tor"
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        return None  # a name, or the path of a socket


def _reaches(link: FrontendLink) -> frozenset[str]:
    """An older frontend that names none reaches what all did then."""
    return REACHES.intersection(link.capabilities) or frozenset(("ipv4", "ipv6"))
