"""The PROXY protocol, versions 1 and 2: what a load balancer says first about whom it speaks for. Sans-IO.

After HAProxy's proxy-protocol.txt. A receiver decides from whom it takes such a header: whoever may send one may
claim any address.
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from node.errors import MalformedMessage

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2; no peer can begin so by accident
V1_START = b"PROXY "
MAX_V1 = 107  # bytes, line end included: two IPv6 addresses at their longest
V2_HEAD = 16
MAX_V2_BODY = 4_096  # two Unix paths take 216, the rest are TLVs; balancers add a few hundred bytes

_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_SIZES = {_INET: 12, _INET6: 36, _UNIX: 216}
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")


class Proxied(Struct, frozen=True):
    """The header's word: whom the connection comes from ("HOST:PORT"), "" where it says nothing about that."""

    address: str
    rest: bytes  # what followed the header


class ProxyHeader:
    """Takes bytes until the header is complete."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = b""

    def receive(self, data: bytes) -> Proxied | None:
        """None while more is needed. Raises MalformedMessage for what is no header, as soon as that shows."""
        self._bytes += data
        start = self._bytes[: len(SIGNATURE)]
        if SIGNATURE.startswith(start):
            return self._second() if len(start) == len(SIGNATURE) else None
        if V1_START.startswith(self._bytes[: len(V1_START)]):
            return self._first()
        raise MalformedMessage("no PROXY header")

    def _first(self) -> Proxied | None:
        line, end, rest = self._bytes.partition(b"\r\n")
        if len(line) + 2 > MAX_V1 or b"\n" in line:
            raise MalformedMessage("a PROXY line that does not end")
        return Proxied(_line(line), rest) if end else None

    def _second(self) -> Proxied | None:
        if len(self._bytes) < V2_HEAD:
            return None
        command, family = self._bytes[12], self._bytes[13] >> 4
        size = int.from_bytes(self._bytes[14:V2_HEAD], "big")
        if command not in (_LOCAL, _PROXY):
            raise MalformedMessage(f"PROXY version and command {command:#x}")
        if size > MAX_V2_BODY:
            raise MalformedMessage(f"a PROXY header of {size} bytes")
        if command == _PROXY and size < _SIZES.get(family, 0):
            raise MalformedMessage(f"{size} bytes hold no address of family {family}")
        if len(self._bytes) < V2_HEAD + size:
            return None
        body, rest = self._bytes[V2_HEAD : V2_HEAD + size], self._bytes[V2_HEAD + size :]
        return Proxied(_addresses(family, body) if command == _PROXY else "", rest)


def _line(line: bytes) -> str:
    """The source in a line of version 1."""
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:  # whatever follows is to be ignored
        return ""
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise MalformedMessage("a PROXY line of another form")
    kind: type[IPv4Address | IPv6Address] = IPv4Address if words[1] == b"TCP4" else IPv6Address
    try:
        source, _ = (kind(word.decode("ascii")) for word in words[2:4])
    except ValueError as error:
        raise MalformedMessage("a PROXY line without addresses") from error
    if not all(_PORT.fullmatch(word) and int(word) <= 65_535 for word in words[4:]):
        raise MalformedMessage("a PROXY line without ports")
    return _joined(source, int(words[4]))


def _addresses(family: int, body: bytes) -> str:
    """The source in a header of version 2; what follows the addresses are TLVs, which say nothing that we need."""
    if family == _INET:
        return _joined(IPv4Address(body[:4]), int.from_bytes(body[8:10], "big"))
    if family == _INET6:
        return _joined(IPv6Address(body[:16]), int.from_bytes(body[32:34], "big"))
    return ""  # a Unix socket, or a family to come


def _joined(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
