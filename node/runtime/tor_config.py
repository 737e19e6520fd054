"""The settings that concern Tor, and what a node that speaks through Tor alone may not be configured to do."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from node.errors import MalformedMessage, Refused
from node.runtime.addresses import is_loopback, kind_of, split_address
from node.runtime.section import Section, about
from node.wire.addresses import encode_address

Way = Literal["direct", "proxy", "never"]


class TorConfig(Section, frozen=True):
    """For all frontends: the backend sends it to them."""

    socks: Annotated[
        str, about("HOST:PORT of the SOCKS proxy, as seen by a frontend (its own `socks` wins); empty: none")
    ] = ""
    onion: Annotated[Literal["proxy", "never"], about("how onion addresses are dialled: proxy, never")] = (
        "proxy"
    )
    ipv4: Annotated[Way, about("how IPv4 addresses are dialled: direct, proxy, never")] = "direct"
    ipv6: Annotated[Way, about("how IPv6 addresses are dialled: direct, proxy, never")] = "direct"
    dns: Annotated[Way, about("how names are dialled: direct, proxy (which resolves them), never")] = "direct"
    isolate: Annotated[
        bool, about("a user name for each peer at the proxy: Tor then takes another circuit for each")
    ] = True
    only: Annotated[
        bool,
        about("nothing leaves but through the proxy: direct becomes proxy, and what would leak is refused"),
    ] = False
    address_file: Annotated[
        str, about("file in which lntor keeps the onion address (its service.address_file); empty: none")
    ] = ""
    announce: Annotated[
        bool, about("the node_announcement carries what lntor tells of, by address_file or by the API")
    ] = True


def check_announced(addresses: tuple[str, ...], source: str) -> None:
    """Raises Refused for what a node_announcement can't carry."""
    for address in addresses:
        if address.startswith("unix:"):
            raise Refused(f"{source}: announce_addresses: {address}: peers can't reach a Unix socket")
        try:
            encode_address(*split_address(address)[1:])
        except Refused as error:
            raise Refused(f"{source}: announce_addresses: {error}") from error
        except MalformedMessage as error:
            raise Refused(f"{source}: announce_addresses: {address}: {error}") from error
    names = [address for address in addresses if kind_of(address) == "dns"]
    if len(names) > 1:
        raise Refused(f"{source}: announce_addresses: {', '.join(names)}: one host name is allowed (BOLT 7)")


def check_tor(
    tor: TorConfig, source: str, announced: tuple[str, ...], elsewhere: Mapping[str, str], listen: str
) -> None:
    """`elsewhere`: URLs that this process connects to, by the fields that hold them. Raises Refused."""
    check_socks(tor.socks, f"{source}: tor.socks")
    proxied = [kind for kind in ("ipv4", "ipv6", "dns") if getattr(tor, kind) == "proxy"]
    if proxied and not tor.socks:
        raise Refused(f"{source}: tor.{proxied[0]}: proxy: tor.socks is empty; say 127.0.0.1:9050")
    if not tor.only:
        return
    if not tor.socks:
        raise Refused(f"{source}: tor.only: needs tor.socks, or nothing can leave; say 127.0.0.1:9050")
    if not _stays_near(f"socks://{tor.socks}"):
        raise Refused(
            f"{source}: tor.socks: {tor.socks}: leaves this host's network, and tor.only is set; {NEAR}"
        )
    for address in announced:
        if kind_of(address) != "onion":
            raise Refused(
                f"{source}: announce_addresses: {address}: tor.only announces onion addresses alone"
            )
    for field, url in elsewhere.items():
        if url and not _stays_near(url):
            raise Refused(f"{source}: {field}: leaves this host's network, and tor.only is set; {NEAR}")
    if listen and not is_loopback(listen):
        raise Refused(f"{source}: listen: {listen}: tor.only listens for the Tor daemon alone; use 127.0.0.1")


NEAR = "use a loopback or private address, and no name (it would be looked up)"


def check_socks(address: str, field: str) -> None:
    """Raises Refused."""
    if not address:
        return
    try:
        kind, host, port = split_address(address)
    except Refused as error:
        raise Refused(f"{field}: {error}") from error
    if kind == "unix" or not host or not port:
        raise Refused(f"{field}: {address}: say HOST:PORT, such as 127.0.0.1:9050")


def _stays_near(url: str) -> bool:
    """Whether all hosts that this URL names are of this host or of a private network; a socket file is."""
    parts = urlsplit(url)
    hosts = [urlsplit(f"//{each}").hostname or "" for each in parts.netloc.rpartition("@")[2].split(",")]
    query = parse_qs(parts.query)  # where PostgreSQL's hosts may be, too
    named = ",".join((*query.get("host", ()), *query.get("hostaddr", ())))
    return all(map(_is_near, (*hosts, *named.split(","))))


def _is_near(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_private  # loopback and link-local are among them
    except ValueError:
        return False
