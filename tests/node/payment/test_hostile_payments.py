"""Bytes that strangers choose: an invoice, an onion's payload, a failure message. Malformed, or nothing happens."""

from contextlib import suppress

import bech32
from hypothesis import example, given
from hypothesis import strategies as st

from node.crypto.hashes import sha256
from node.crypto.keys import sign_recoverable
from node.errors import MalformedMessage
from node.payment.invoice import decode
from node.wire.bolt4 import HopPayload, decode_failure
from node.wire.codec import decode_tlvs

GROUPS = st.lists(st.integers(0, 31), max_size=120)
SECRET = b"\1" * 32
PREFIXES = st.sampled_from(["lnbc", "lnbcrt", "lnbcrt1m", "lnbcrt10p", "lnbcrt99999999999999999999m", "lntb0u", "lnxx", "ln"])  # fmt: skip


@st.composite
def tagged_fields(draw):
    """What looks like the fields of an invoice; lengths may lie."""
    groups = draw(st.lists(st.integers(0, 31), min_size=7, max_size=7))
    for _ in range(draw(st.integers(0, 6))):
        tag = draw(st.sampled_from([1, 3, 5, 6, 9, 13, 16, 19, 23, 24, 27, 31]))
        size = draw(st.sampled_from([0, 1, 2, 52, 53, 82, 103]))
        lie = draw(st.sampled_from([0, 0, 0, 1, -1, 500])) if size else 0
        told = max(0, size + lie)
        groups += [
            tag,
            told >> 5 & 31,
            told & 31,
            *draw(st.lists(st.integers(0, 31), min_size=size, max_size=size)),
        ]
    return groups


@given(PREFIXES, st.one_of(GROUPS, tagged_fields()), st.booleans())
@example("lnbcrt", [0] * 7, True)
def test_an_invoice_with_a_good_checksum_and_signature_is_read_or_malformed(prefix, groups, signed):
    if signed:
        data = bytes(bech32.convertbits(groups, 5, 8, True))
        signature = sign_recoverable(SECRET, sha256(prefix.encode() + data))
        groups = groups + bech32.convertbits(signature, 8, 5, True)
    with suppress(MalformedMessage):
        decode(bech32.bech32_encode(prefix, groups))


@given(st.text(max_size=200))
def test_any_text_is_an_invoice_or_malformed(text):
    with suppress(MalformedMessage):
        decode(text)


@given(st.binary(max_size=300))
def test_any_payload_and_any_failure_message_is_read_or_malformed(data):
    with suppress(MalformedMessage):
        decode_tlvs(HopPayload, data)
    with suppress(MalformedMessage):
        decode_failure(data)
