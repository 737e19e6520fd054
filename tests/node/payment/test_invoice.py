"""BOLT 11: every vector of the specification, an independent library, and texts that lie."""

import json
from pathlib import Path

import bolt11
import pytest
import wallycore
from bech32 import bech32_decode, bech32_encode
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.crypto import keys
from node.errors import MalformedMessage, Refused
from node.payment.invoice import MAX_AMOUNT_MSAT, Fallback, HintHop, Invoice, decode, encode
from node.wire.features import Feature, Features

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bolt11.json").read_text())
SECRET = bytes.fromhex(VECTORS["private_key"])
NODE_ID = keys.public_key(SECRET)
BOLT_ORDER = [  # vectors whose fields stand in the order in which we write them
    v
    for v in VECTORS["valid"]
    if v["name"].startswith(
        ("Please make", "Please send $3 ", "Now send", "On mainnet, with fallback (P2TR)")
    )
]


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["name"][:40])
def test_valid_vectors(vector):
    found = decode(vector["invoice"])
    for name, value in vector["expected"].items():
        assert shown(found, name) == value, name


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda v: v["name"][:40])
def test_invalid_vectors(vector):
    with pytest.raises(MalformedMessage):
        decode(vector["invoice"])


@pytest.mark.parametrize("vector", BOLT_ORDER, ids=lambda v: v["name"][:40])
def test_vectors_are_written_the_same(vector):
    assert encode(decode(vector["invoice"]), SECRET) == vector["invoice"]


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["name"][:40])
def test_an_independent_reader_agrees(vector):
    ours, theirs = decode(vector["invoice"]), bolt11.decode(vector["invoice"].lower())
    assert ours.payment_hash.hex() == theirs.payment_hash
    assert ours.payment_secret.hex() == theirs.payment_secret
    assert ours.amount_msat == theirs.amount_msat
    assert ours.timestamp_s == theirs.date
    assert ours.description == theirs.description
    assert ours.node_id.hex() == theirs.payee


def shown(invoice: Invoice, name: str):
    """A field in the notation of the vectors."""
    match name:
        case "address":
            return address(invoice.fallbacks[0], invoice.network)
        case "features":
            return [bit for bit in range(100) if invoice.features.bits >> bit & 1]
        case "route_hint":
            return [
                [
                    h.node_id.hex(),
                    scid(h.short_channel_id),
                    h.fee_base_msat,
                    h.fee_proportional_millionths,
                    h.cltv_expiry_delta,
                ]
                for h in invoice.route_hints[0]
            ]
    value = getattr(invoice, name)
    return value.hex() if isinstance(value, bytes) else value


def scid(number: int) -> str:
    return f"{number >> 40}x{number >> 16 & 0xFFFFFF}x{number & 0xFFFF}"


def address(fallback: Fallback, network: str) -> str:
    if fallback.version <= 16:
        script = (
            bytes((0x50 + fallback.version if fallback.version else 0, len(fallback.program)))
            + fallback.program
        )
        return wallycore.addr_segwit_from_bytes(script, "bc" if network == "bitcoin" else "tb", 0)
    version = (
        {17: 0x00, 18: 0x05}[fallback.version]
        if network == "bitcoin"
        else {17: 0x6F, 18: 0xC4}[fallback.version]
    )
    return wallycore.base58check_from_bytes(bytes((version,)) + fallback.program)


points = st.integers(1, 1 << 64).map(lambda n: keys.public_key(n.to_bytes(32, "big")))
hops = st.builds(
    HintHop,
    points,
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 16) - 1),
)
invoices = st.builds(
    Invoice,
    network=st.sampled_from(("bitcoin", "testnet", "signet", "regtest")),
    amount_msat=st.none() | st.integers(1, MAX_AMOUNT_MSAT),
    timestamp_s=st.integers(0, (1 << 35) - 1),
    payment_hash=st.binary(min_size=32, max_size=32),
    payment_secret=st.binary(min_size=32, max_size=32),
    description=st.text(max_size=100),
    expiry_s=st.integers(0, (1 << 60) - 1),
    min_final_cltv_expiry_delta=st.integers(0, 2016),
    fallbacks=st.lists(
        st.builds(Fallback, st.sampled_from((0, 17, 18)), st.binary(min_size=20, max_size=20))
        | st.builds(Fallback, st.integers(1, 16), st.binary(min_size=2, max_size=40)),
        max_size=3,
    ).map(tuple),
    route_hints=st.lists(st.lists(hops, min_size=1, max_size=4).map(tuple), max_size=2).map(tuple),
    features=st.sampled_from(
        (
            Features(),
            Features.of(
                compulsory=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET), optional=(Feature.BASIC_MPP,)
            ),
            Features(1 << 1001),
        )
    ),
    payment_metadata=st.none() | st.binary(max_size=300),
    node_id=st.just(NODE_ID),
)


@settings(max_examples=60, deadline=None)
@given(invoices)
def test_what_is_written_is_read(invoice):
    assert decode(encode(invoice, SECRET)) == invoice
    assert decode(encode(invoice, SECRET).upper()) == invoice


def test_the_hash_of_a_description():
    invoice = replace(decode(VECTORS["valid"][0]["invoice"]), description=None, description_hash=b"\x07" * 32)
    assert decode(encode(invoice, SECRET)) == invoice


@pytest.mark.parametrize(
    "changes",
    [
        {"description_hash": b"\x07" * 32},
        {"description": None},
        {"features": Features.of(compulsory=(Feature.OPTION_ROUTE_BLINDING,))},
        {"features": Features.of(optional=(Feature.BASIC_MPP,))},
    ],
    ids=str,
)
def test_what_must_not_be_paid(changes):
    text = encode(replace(decode(VECTORS["valid"][0]["invoice"]), **changes), SECRET)
    with pytest.raises(MalformedMessage):
        decode(text)


@pytest.mark.parametrize(
    "changes",
    [{"description": "x" * 640}, {"fallbacks": (Fallback(1, bytes(40)),) * 100}],
    ids=("one field", "the whole"),
)
def test_what_does_not_fit(changes):
    with pytest.raises(Refused):
        encode(replace(decode(VECTORS["valid"][0]["invoice"]), **changes), SECRET)


@pytest.mark.parametrize(
    "prefix",
    ["lnbc0", "lnbc01u", "lnbc1x", "lnbc-1", "lnbc\u0661", "lnxx1u", "bc1u", "lnbc1p", "lnbc" + "9" * 20],
)
def test_prefixes_that_are_none(prefix):
    _, data = bech32_decode(VECTORS["valid"][0]["invoice"])
    with pytest.raises(MalformedMessage):
        decode(bech32_encode(prefix, data))


TEXTS = [vector["invoice"].lower() for vector in VECTORS["valid"] + VECTORS["invalid"][:1]]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzz_with_a_good_checksum(data):
    """Every mutation gets a checksum that holds, so that it reaches the fields behind."""
    prefix, groups = bech32_decode(data.draw(st.sampled_from(TEXTS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(groups)))
        cut = data.draw(st.integers(0, 4))
        groups[at : at + cut] = data.draw(st.lists(st.integers(0, 31), max_size=6))
    survives(bech32_encode(data.draw(st.sampled_from((prefix, "lnbcrt1m", "lnbc1p", "ln"))), groups))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzz_of_added_fields(data):
    """Well-framed fields of any number and content, beside those that must be there."""
    prefix, groups = bech32_decode(data.draw(st.sampled_from(TEXTS)))
    tags = st.tuples(st.integers(0, 31), st.lists(st.integers(0, 31), max_size=60))
    body = groups[:-104]
    for tag, field in data.draw(st.lists(tags, min_size=1, max_size=3)):
        body += [tag, len(field) >> 5, len(field) & 31, *field]
    survives(bech32_encode(prefix, body + groups[-104:]))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(max_size=50).map(lambda t: "lnbc1" + t))
def test_fuzz_of_any_text(text):
    survives(text)


def survives(text: str) -> None:
    try:
        found = decode(text)
    except MalformedMessage:
        return
    assert keys.is_valid_point(found.node_id)


def plain() -> Invoice:
    return replace(decode(BOLT_ORDER[0]["invoice"]), node_id=NODE_ID)


@pytest.mark.parametrize("amount_msat", [10**18 + 1, MAX_AMOUNT_MSAT])
def test_the_largest_amounts_need_twenty_figures(amount_msat: int) -> None:
    text = encode(replace(plain(), amount_msat=amount_msat), SECRET)

    assert decode(text).amount_msat == amount_msat


@pytest.mark.parametrize("amount_msat", [0, -1, MAX_AMOUNT_MSAT + 1])
def test_an_amount_that_no_invoice_can_ask_for_is_refused(amount_msat: int) -> None:
    with pytest.raises(Refused, match="amount_msat"):
        encode(replace(plain(), amount_msat=amount_msat), SECRET)
