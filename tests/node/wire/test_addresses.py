"""The addresses of a node_announcement: BOLT 7's descriptors, whoever wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.wire.addresses import MAX_ADDRESSES, Address, decode_addresses, encode_address, onion_key

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"  # torproject.org's
ALL = (
    Address("1.2.3.4", 9735),
    Address("2001:db8::1", 9736),
    Address(ONION, 9737),
    Address("node.example", 9738),
)
KINDS = (1, 2, 4, 5)


def encoded(*addresses: Address) -> bytes:
    return b"".join(encode_address(*each) for each in addresses)


def test_each_kind_comes_back():
    assert decode_addresses(encoded(*ALL)) == ALL
    assert tuple(encode_address(*each)[0] for each in ALL) == KINDS
    assert encode_address("1.2.3.4", 9735).hex() == "01010203042607"
    assert encode_address("ab.c", 1).hex() == "050461622e630001"
    assert encode_address(ONION.upper(), 1) == encode_address(ONION, 1)


def test_what_can_not_be_dialled_is_left_out_and_the_rest_is_not():
    dead = bytes((3,)) + bytes(12)  # an onion address of version 2
    no_port = encode_address("5.6.7.8", 1)[:-2] + bytes(2)
    bad_sum = bytes((4,)) + onion_key(ONION)[:-3] + b"\0\0\3" + b"\x26\x07"
    odd = b"\x05\x03a b\x26\x07"
    second = encode_address("b.example", 1)
    mixed = dead + no_port + bad_sum + encoded(*ALL) + second + odd
    assert decode_addresses(mixed) == ALL


def test_what_follows_an_unknown_type_is_unknown():
    assert decode_addresses(encoded(ALL[0]) + b"\x09" + encoded(*ALL)) == ALL[:1]


def test_strangers_do_not_fill_our_memory():
    assert len(decode_addresses(encoded(ALL[0]) * 1_000)) == MAX_ADDRESSES


@given(st.binary(max_size=100))
def test_any_bytes_are_some_addresses(data: bytes):
    for address in decode_addresses(data):
        assert decode_addresses(encode_address(*address)) == (address,)


@pytest.mark.parametrize(
    "host",
    [
        "", "a b", "ä.example", "a..b", "x" * 64, "a." * 127 + "abc", "abc.onion",
        "expyuzz4wqqyqhjn.onion", ONION.replace("2gzy", "2gzz"), f"www.{ONION}",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(host: str):
    with pytest.raises(MalformedMessage):
        encode_address(host, 9735)


def test_port_zero_is_refused():
    with pytest.raises(MalformedMessage, match="port 0"):
        encode_address("1.2.3.4", 0)
