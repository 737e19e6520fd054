"""Addresses as configuration and link write them: "HOST:PORT", "[V6]:PORT" or "unix:PATH"."""

import ipaddress
from pathlib import Path

from node.errors import Refused


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


def is_loopback(address: str) -> bool:
    """Whether only this host can be behind it."""
    kind, host, _ = split_address(address)
    if kind == "unix" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
