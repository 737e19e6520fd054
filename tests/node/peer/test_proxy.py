"""The PROXY protocol: what a balancer may say, in whatever pieces it comes; whatever else is refused at once."""

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.peer.proxy import MAX_V1, MAX_V2_BODY, SIGNATURE, Proxied, ProxyHeader

REST = b"\x00 act one"
FAMILIES = {4: 1, 6: 2}


def v2(command: int, family: int, body: bytes, transport: int = 1) -> bytes:
    return SIGNATURE + bytes((command, family << 4 | transport)) + struct.pack(">H", len(body)) + body


def inet(source: str, port: int, tlvs: bytes = b"") -> bytes:
    ip = ipaddress.ip_address(source)
    there = bytes(len(ip.packed))
    return v2(0x21, FAMILIES[ip.version], ip.packed + there + struct.pack(">HH", port, 9735) + tlvs)


GOOD = {
    "v1 IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 9735\r\n", "192.0.2.1:56324"),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 9735\r\n", "[2001:db8::1]:56324"),
    "v1 longest": (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", None),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", ""),
    "v1 unknown with more": (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", ""),
    "v1 mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1"),
    "v2 IPv4": (inet("192.0.2.1", 56324), "192.0.2.1:56324"),
    "v2 IPv6": (inet("2001:db8::1", 1), "[2001:db8::1]:1"),
    "v2 TLVs": (inet("192.0.2.1", 5, b"\x04\x00\x02ab" + b"\xea\x00\x05\x01vpce"), "192.0.2.1:5"),
    "v2 unix": (v2(0x21, 3, b"/run/a.sock".ljust(108, b"\0") * 2), ""),
    "v2 local": (v2(0x20, 0, b""), ""),
    "v2 local with a body": (v2(0x20, 1, b"anything"), ""),
    "v2 unspecified": (v2(0x21, 0, b"", transport=0), ""),
    "v2 family to come": (v2(0x21, 9, b"12345"), ""),
}
BAD = {
    "BOLT 8": b"\x00" + bytes(49),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "v1 without end": b"PROXY TCP4 " + b"1" * MAX_V1,
    "v1 too long": b"PROXY UNKNOWN " + b"x" * MAX_V1 + b"\r\n",
    "v1 bare newline": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    "v1 no addresses": b"PROXY TCP4 here there 1 2\r\n",
    "v1 wrong family": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "v1 other transport": b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "v1 port": b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    "v1 signed port": b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    "v1 zeros before": b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    "v1 two spaces": b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    "v1 not ASCII": b"PROXY TCP4 192.0.2.\xb2 192.0.2.2 1 2\r\n",
    "v2 version 1": v2(0x11, 1, bytes(12)),
    "v2 command 2": v2(0x22, 1, bytes(12)),
    "v2 short IPv4": v2(0x21, 1, bytes(11)),
    "v2 short IPv6": v2(0x21, 2, bytes(35)),
    "v2 short unix": v2(0x21, 3, bytes(215)),
    "v2 over-long": v2(0x21, 1, bytes(MAX_V2_BODY + 1)),
}


def fed(pieces: list[bytes]) -> Proxied | None:
    """What a reader makes of these; bytes that come later belong to the peer."""
    reader = ProxyHeader()
    for at, piece in enumerate(pieces):
        if (found := reader.receive(piece)) is not None:
            return Proxied(found.address, found.rest + b"".join(pieces[at + 1 :]))
    return None


@pytest.mark.parametrize("name", GOOD)
def test_every_split_gives_the_same(name: str) -> None:
    header, address = GOOD[name]
    data = header + REST
    whole = fed([data])

    assert whole is not None
    assert whole.rest == REST
    assert address is None or whole.address == address
    assert fed([data[i : i + 1] for i in range(len(data))]) == whole
    for at in range(len(data) + 1):
        assert fed([data[:at], data[at:]]) == whole
    for at in range(len(header)):
        assert fed([header[:at]]) is None


@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(1, 40), max_size=20))
def test_pieces_of_any_size(name: str, sizes: list[int]) -> None:
    data, pieces = GOOD[name][0] + REST, []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]

    assert fed([*pieces, data]) == fed([GOOD[name][0] + REST])


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_in_whatever_pieces(name: str) -> None:
    data = BAD[name]
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(MalformedMessage):
            fed(pieces)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
)
def test_garbage_is_refused_or_waited_for(garbage: bytes, start: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        ProxyHeader().receive(start + garbage)


@given(st.ip_addresses(), st.integers(0, 65_535), st.binary(max_size=200))
def test_any_address_comes_through(ip, port: int, tlvs: bytes) -> None:
    found = fed([inet(str(ip), port, tlvs) + REST])

    assert found is not None
    host, _, text = found.address.rpartition(":")
    mapped = getattr(ip, "ipv4_mapped", None)
    assert (ipaddress.ip_address(host.strip("[]")), int(text)) == (mapped or ip, port)
    assert found.rest == REST


def test_the_signature_is_that_of_the_specification() -> None:
    assert bytes.fromhex("0d0a0d0a000d0a515549540a") == SIGNATURE
