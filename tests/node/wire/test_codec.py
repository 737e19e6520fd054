"""The codec engine: round trips, strictness, and parity with published message tables."""

import csv
import importlib.util
import io
import runpy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.wire import bolt1, bolt2, bolt4, bolt7, codec, fields
from node.wire.codec import BY_NUMBER
from node.wire.features import ChannelType, Feature, Features

CHANNEL = bytes(range(32))


def test_a_message_round_trips_with_and_without_its_tlvs() -> None:
    bare = bolt2.ClosingSigned(CHANNEL, 1_000, b"s" * 64)
    ranged = bolt2.ClosingSigned(CHANNEL, 1_000, b"s" * 64, fee_range=bolt2.FeeRange(500, 2_000))

    assert codec.decode(codec.encode(bare)) == bare
    assert codec.decode(codec.encode(ranged)) == ranged
    assert codec.encode(ranged) == codec.encode(bare) + b"\x01\x10" + (500).to_bytes(8, "big") + (
        2_000
    ).to_bytes(8, "big")


def test_an_unknown_even_record_is_refused_and_an_odd_one_ignored() -> None:
    raw = codec.encode(bolt2.ChannelReady(CHANNEL, b"\x02" + b"p" * 32))

    assert codec.decode(raw + b"\x09\x01x") == codec.decode(raw)
    with pytest.raises(MalformedMessage, match="unknown even TLV record 8"):
        codec.decode(raw + b"\x08\x01x")


def test_records_out_of_order_or_twice_are_refused() -> None:
    raw = codec.encode(bolt2.ChannelReady(CHANNEL, b"\x02" + b"p" * 32))
    for stream in (b"\x09\x00\x07\x00", b"\x09\x00\x09\x00"):
        with pytest.raises(MalformedMessage, match="out of order"):
            codec.decode(raw + stream)


def test_an_unknown_odd_message_is_named_and_an_even_one_refused() -> None:
    assert codec.decode(b"\x9c\x41abc") == codec.Unknown(0x9C41, b"abc")
    with pytest.raises(MalformedMessage, match="unknown even message type"):
        codec.decode(b"\x9c\x40abc")


def test_a_length_that_lies_allocates_nothing() -> None:
    """Security row 6: every length is checked against the bytes there are."""
    for raw in (b"\x00\x11" + CHANNEL + b"\xff\xffx", b"\x00\x84" + CHANNEL + b"s" * 64 + b"\xff\xff"):
        with pytest.raises(MalformedMessage):
            codec.decode(raw)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "00"), (252, "fc"), (253, "fd00fd"), (65_535, "fdffff"), (65_536, "fe00010000"),
        (4_294_967_295, "feffffffff"), (4_294_967_296, "ff0000000100000000"), (2**64 - 1, "ffffffffffffffffff"),
    ],
)  # fmt: skip
def test_bigsize_vectors(value: int, text: str) -> None:
    """BOLT 1, appendix A: BigSize test vectors."""
    assert fields.encode_bigsize(value).hex() == text
    assert fields.decode_bigsize(bytes.fromhex(text), 0) == (value, len(text) // 2)


@pytest.mark.parametrize(
    "text",
    ["fd00fc", "fe0000ffff", "ff00000000ffffffff", "fd00", "feffff", "ffffffffff", "", "fd", "fe", "ff"],
)
def test_bigsize_vectors_that_must_fail(text: str) -> None:
    with pytest.raises(MalformedMessage):
        fields.decode_bigsize(bytes.fromhex(text), 0)


@given(st.sampled_from(sorted(BY_NUMBER)), st.binary(max_size=1_600))
@settings(max_examples=400)
def test_decoding_is_total_and_a_fix_point(number: int, payload: bytes) -> None:
    """Whatever bytes come: a message that encodes and decodes to itself, or MalformedMessage."""
    try:
        decoded = codec.decode(number.to_bytes(2, "big") + payload)
    except MalformedMessage:
        return
    assert isinstance(decoded, codec.Message)
    assert codec.decode(codec.encode(decoded)) == decoded


@given(st.binary(max_size=300))
def test_decoding_an_onion_payload_or_a_failure_is_total(data: bytes) -> None:
    for decode in (lambda d: codec.decode_tlvs(bolt4.HopPayload, d), bolt4.decode_failure):
        try:
            decode(data)
        except MalformedMessage:
            continue


# What the published tables (of 2022) do not have, or have and the BOLTs dropped since.
NEWER = {"closing_complete", "closing_sig"}
RENAMED = {"htlc_signatures": "htlc_signature", "encoded": "encoded_short_ids"}


@pytest.mark.parametrize("bolt", [1, 2, 7])
def test_every_message_matches_the_published_tables(bolt: int) -> None:
    """Number, fields and order of each registered message against PyPI's pyln-bolt tables."""
    # Run by path: the package's own __init__ wants a library that would replace our libsecp256k1 binding.
    spec = importlib.util.find_spec("pyln")
    (folder,) = spec.submodule_search_locations
    module = runpy.run_path(f"{folder}/spec/bolt{bolt}/csv.py")
    table: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for row in csv.reader(io.StringIO("\n".join(module["csv"]))):
        if row[0] == "msgtype":
            numbers[row[1]] = int(row[2])
            table[row[1]] = []
        elif row[0] == "msgdata" and not row[2].endswith(("len", "tlvs", "num_htlcs")):
            table[row[1]].append(row[2])
    source = {1: bolt1, 2: bolt2, 7: bolt7}[bolt]
    checked = 0
    for cls in BY_NUMBER.values():
        if cls.__module__ != source.__name__ or _snake(cls.__name__) in NEWER:
            continue
        plain = [RENAMED.get(f, f) for f in cls.__struct_fields__ if f not in codec._codec(cls).tlv_names]
        assert numbers[_snake(cls.__name__)] == cls.number
        expected = table[_snake(cls.__name__)]
        assert plain == expected[: len(plain)], cls.__name__
        assert all(name == "htlc_maximum_msat" for name in expected[len(plain) :])
        checked += 1
    assert checked >= {1: 5, 2: 15, 7: 9}[bolt]


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def test_feature_bits_and_dependencies() -> None:
    ours = Features.of(optional=(Feature.OPTION_ANCHORS,), compulsory=(Feature.PAYMENT_SECRET,))
    assert ours.to_bytes().hex() == "804000"
    assert ours.supports(Feature.OPTION_ANCHORS)
    assert not ours.requires(Feature.OPTION_ANCHORS)
    assert Features(1 << 100).unknown_even(ours) == (100,)
    assert Features(1 << 101).unknown_even(ours) == ()
    assert Features(1 << 22).unknown_even(ours) == ()
    assert Features.of(optional=(Feature.BASIC_MPP,)).missing_dependencies() == (
        (Feature.BASIC_MPP, Feature.PAYMENT_SECRET),
    )


def test_channel_types_are_their_bits() -> None:
    for kind in (ChannelType(False), ChannelType(True), ChannelType(False, True), ChannelType(True, True)):
        assert ChannelType.from_bytes(kind.to_bytes()) == kind
    assert ChannelType(True).to_bytes().hex() == "401000"
    assert ChannelType.from_bytes(b"") is None
    assert ChannelType.from_bytes(b"\xff") is None
