"""Addresses as configuration and link write them: "HOST:PORT", "[V6]:PORT" or "unix:PATH"."""

import ipaddress
from pathlib import Path
from typing import Literal

from node.errors import Refused

Kind = Literal["ipv4", "ipv6", "dns", "onion"]


def split_address(address: str) -> tuple[str, str, int]:
    """("unix", path, 0) or ("tcp", host, port). Raises Refused for anything else."""
    if address.startswith("unix:"):
        return "unix", str(Path(address.removeprefix("unix:")).expanduser()), 0
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise Refused(f'"{address}" is no address: say HOST:PORT, [V6]:PORT or unix:PATH')
    return "tcp", host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def kind_of(address: str) -> Kind | None:
    """What it takes to reach it; None: the path of a socket, which is of this host."""
    if address.startswith("unix:"):
        return None
    host = address.rpartition(":")[0].strip("[]").rstrip(".").lower()
    if host.endswith(".onion"):
        return "onion"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "dns"
    if ip.version == 4 or ip.ipv4_mapped is not None:  # a mapped one is reached over IPv4
        return "ipv4"
    return "ipv6"


def is_loopback(address: str) -> bool:
    """Whether only this host can be behind it."""
    kind, host, _ = split_address(address)
    if kind == "unix" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
