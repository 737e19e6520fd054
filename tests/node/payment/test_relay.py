"""BOLT 4: what a hop does with an HTLC, rule by rule."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.crypto import keys, sphinx
from node.crypto.failures import unwrap_failure
from node.crypto.hashes import sha256
from node.payment.htlc import HtlcKey
from node.payment.relay import (
    Fail,
    FailMalformed,
    Final,
    Forward,
    IncomingHtlc,
    Opened,
    OutgoingChannel,
    decide,
    peel,
    refuse,
)
from node.wire import bolt4
from node.wire.bolt4 import HopPayload, PaymentData, decode_failure
from node.wire.codec import encode_tlvs

HEIGHT = 800_000
SCID, ALIAS = 7 << 40 | 1 << 16, 9 << 40 | 5 << 16
NODE, NEXT = b"\x01" * 32, b"\x02" * 32
HASH = b"\x0c" * 32
SHARED = b"\x0d" * 32
UPDATE = b"\x01\x02" + bytes(64 + 32) + SCID.to_bytes(8, "big") + b"the rest"
KEY = HtlcKey(b"\x0a" * 32, offered=False, htlc_id=3)

PAYLOAD = HopPayload(amt_to_forward=1_000_000, outgoing_cltv_value=HEIGHT + 100, short_channel_id=SCID)
HTLC = IncomingHtlc(
    key=KEY, amount_msat=1_001_100, payment_hash=HASH, cltv_expiry=HEIGHT + 140, onion=bytes(1366)
)
CHANNEL = OutgoingChannel(
    channel_id=b"\x0b" * 32,
    fee_base_msat=1_000,
    fee_proportional_millionths=100,
    cltv_expiry_delta=40,
    htlc_minimum_msat=1_000,
    htlc_maximum_msat=50_000_000,
    enabled=True,
    usable=True,
    spendable_msat=10_000_000,
    channel_update=UPDATE,
)


def opened(payload=PAYLOAD, next_onion=b"next"):
    return Opened(payload, next_onion, SHARED)


def decided(htlc=HTLC, payload=PAYLOAD, channels=(CHANNEL,), height=HEIGHT, next_onion=b"next"):
    return decide(
        htlc, opened(payload, next_onion), height, lambda scid: channels if scid in (SCID, ALIAS) else ()
    )


def said(decision):
    """The failure as the origin reads it out of the packet."""
    assert isinstance(decision, Fail)
    _, message = unwrap_failure((SHARED,), decision.reason)
    assert decode_failure(message) == decision.failure
    return decision.failure


def test_forwards_what_pays_exactly_enough():
    assert decided() == Forward(
        channel_id=CHANNEL.channel_id,
        amount_msat=1_000_000,
        cltv_expiry=HEIGHT + 100,
        next_onion=b"next",
        shared_secret=SHARED,
        fee_msat=1_100,
    )


@pytest.mark.parametrize(
    ("htlc", "payload", "channel", "failure"),
    [
        ({"amount_msat": 1_001_099}, {}, {}, bolt4.FeeInsufficient(1_001_099, UPDATE)),
        ({"amount_msat": 999_999}, {}, {}, bolt4.FeeInsufficient(999_999, UPDATE)),
        ({}, {"amt_to_forward": 999}, {}, bolt4.AmountBelowMinimum(999, UPDATE)),
        ({"cltv_expiry": HEIGHT + 139}, {}, {}, bolt4.IncorrectCltvExpiry(HEIGHT + 100, UPDATE)),
        ({}, {"outgoing_cltv_value": HEIGHT + 2}, {}, bolt4.ExpiryTooSoon(UPDATE)),
        ({"cltv_expiry": HEIGHT + 2017}, {}, {}, bolt4.ExpiryTooFar()),
        ({}, {}, {"enabled": False}, bolt4.ChannelDisabled(0, UPDATE)),
        ({}, {}, {"usable": False}, bolt4.TemporaryChannelFailure(UPDATE)),
        ({}, {}, {"spendable_msat": 999_999}, bolt4.TemporaryChannelFailure(UPDATE)),
        ({}, {}, {"htlc_maximum_msat": 999_999}, bolt4.TemporaryChannelFailure(UPDATE)),
        ({}, {"short_channel_id": 5}, {}, bolt4.UnknownNextPeer()),
        ({}, {"short_channel_id": None}, {}, bolt4.InvalidOnionPayload(6, 0)),
        ({}, {"amt_to_forward": None}, {}, bolt4.InvalidOnionPayload(2, 0)),
        ({}, {"outgoing_cltv_value": None}, {}, bolt4.InvalidOnionPayload(4, 0)),
        (
            {},
            {"current_path_key": keys.public_key(NODE)},
            {},
            bolt4.InvalidOnionBlinding(sha256(bytes(1366))),
        ),
        ({}, {"encrypted_recipient_data": b"x"}, {}, bolt4.InvalidOnionBlinding(sha256(bytes(1366)))),
        # an update that speaks of the channel by another name than the origin's stays here
        ({}, {"short_channel_id": ALIAS}, {"enabled": False}, bolt4.ChannelDisabled(0, b"")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, bolt4.Failure) else "",
)
def test_refuses(htlc, payload, channel, failure):
    decision = decided(replace(HTLC, **htlc), replace(PAYLOAD, **payload), (replace(CHANNEL, **channel),))
    assert said(decision) == failure


@pytest.mark.parametrize("expiry", [HEIGHT + 2016, HEIGHT + 140])
def test_the_furthest_and_nearest_expiry(expiry):
    payload = replace(PAYLOAD, outgoing_cltv_value=expiry - 40)
    assert isinstance(decided(replace(HTLC, cltv_expiry=expiry), payload), Forward)
    soon = replace(PAYLOAD, outgoing_cltv_value=HEIGHT + 3)
    assert isinstance(decided(HTLC, soon), Forward)


class TestNonStrictForwarding:
    empty = replace(CHANNEL, spendable_msat=5)
    small = replace(CHANNEL, channel_id=b"\x0e" * 32, spendable_msat=1_000_000)
    large = replace(CHANNEL, channel_id=b"\x0f" * 32)
    dear = replace(CHANNEL, channel_id=b"\x10" * 32, fee_base_msat=5_000, spendable_msat=1_000_000)

    def test_the_named_channel_comes_first(self):
        assert decided(channels=(self.large, self.small)).channel_id == self.large.channel_id

    def test_then_the_smallest_that_can(self):
        assert (
            decided(channels=(self.empty, self.large, self.dear, self.small)).channel_id
            == self.small.channel_id
        )

    def test_the_named_one_explains_the_failure(self):
        assert said(decided(channels=(self.empty, self.dear))) == bolt4.TemporaryChannelFailure(UPDATE)


class TestFinal:
    payload = HopPayload(
        amt_to_forward=1_000, outgoing_cltv_value=HEIGHT + 18, payment_data=PaymentData(SHARED, 1_000)
    )
    htlc = replace(HTLC, amount_msat=1_000, cltv_expiry=HEIGHT + 18)

    def test_goes_to_the_receiver(self):
        assert decided(self.htlc, self.payload, next_onion=None) == Final(self.payload, SHARED)

    def test_amount_was_taken(self):
        short = replace(self.htlc, amount_msat=999)
        assert said(decided(short, self.payload, next_onion=None)) == bolt4.FinalIncorrectHtlcAmount(999)

    def test_blocks_were_taken(self):
        late = replace(self.htlc, cltv_expiry=HEIGHT + 17)
        assert said(decided(late, self.payload, next_onion=None)) == bolt4.FinalIncorrectCltvExpiry(
            HEIGHT + 17
        )


def test_refuse_says_nothing_of_our_place():
    assert said(refuse(opened())) == bolt4.TemporaryNodeFailure()


def onion_for(payload: bytes) -> bytes:
    hops = [(keys.public_key(NODE), payload), (keys.public_key(NEXT), encode_tlvs(PAYLOAD))]
    return sphinx.build(b"\x05" * 32, hops, HASH)[0]


class TestPeel:
    def test_opens(self):
        found = peel(replace(HTLC, onion=onion_for(encode_tlvs(PAYLOAD))), NODE)
        assert isinstance(found, Opened)
        assert found.payload == PAYLOAD
        assert found.next_onion is not None

    @pytest.mark.parametrize(
        ("onion", "code"),
        [
            (b"\x01" + bytes(1365), 0xC004),
            (bytes(1366), 0xC006),
            (b"\x00" + keys.public_key(NEXT) + bytes(1332), 0xC005),
        ],
    )
    def test_answers_malformed_onions(self, onion, code):
        assert peel(replace(HTLC, onion=onion), NODE) == FailMalformed(sha256(onion), code)

    def test_an_onion_of_another_payment(self):
        onion = onion_for(encode_tlvs(PAYLOAD))
        replayed = replace(HTLC, onion=onion, payment_hash=b"\x0d" * 32)
        assert peel(replayed, NODE) == FailMalformed(sha256(onion), 0xC005)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\x02\x01\x00",  # an integer that is not minimal
            b"\x04\x00\x02\x00",  # out of order
            b"\x14\x00",  # unknown and even
            b"\x02\x05\x01",  # cut
        ],
        ids=["not minimal", "order", "unknown even", "cut"],
    )
    def test_answers_unreadable_payloads(self, payload):
        found = peel(replace(HTLC, onion=onion_for(payload)), NODE)
        assert isinstance(found, Fail)
        assert found.failure == bolt4.InvalidOnionPayload(0, 0)

    def test_takes_no_part_in_blinded_paths(self):
        assert peel(replace(HTLC, path_key=keys.public_key(NODE)), NODE) == FailMalformed(
            sha256(HTLC.onion), 0xC018
        )


def test_the_route_of_the_specification():
    """BOLT 4's onion vector: five hops, each opened with the hop's own key."""
    vector = json.loads((Path(__file__).parents[2] / "vectors" / "bolt4_onion.json").read_text())
    onion, hash_ = bytes.fromhex(vector["onion"]), bytes.fromhex(vector["generate"]["associated_data"])
    seen = []
    for secret in vector["decode"]:
        found = peel(replace(HTLC, onion=onion, payment_hash=hash_), bytes.fromhex(secret))
        assert isinstance(found, Opened)
        seen.append(
            (found.payload.amt_to_forward, found.payload.outgoing_cltv_value, found.payload.short_channel_id)
        )
        onion = found.next_onion
    assert seen == [
        (15_000, 1_500, 1),
        (14_000, 1_400, 2),
        (12_500, 1_250, 3),
        (10_000, 1_000, 4),
        (10_000, 1_000, None),
    ]
    assert onion is None


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=2, max_size=200))
def test_any_payload_gets_an_answer(payload):
    htlc = replace(HTLC, onion=onion_for(payload))
    found = peel(htlc, NODE)
    if isinstance(found, Opened):
        assert isinstance(decide(htlc, found, HEIGHT, lambda _: (CHANNEL,)), Forward | Fail)
    else:
        assert isinstance(found, Fail)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 3_000_000),
    st.integers(0, 3_000_000),
    st.integers(HEIGHT - 50, HEIGHT + 3_000),
    st.integers(HEIGHT - 50, HEIGHT + 3_000),
    st.integers(0, 5_000_000),
)
def test_a_forward_is_never_to_our_harm(amount_in, amount_out, expiry_in, expiry_out, spendable):
    htlc = replace(HTLC, amount_msat=amount_in, cltv_expiry=expiry_in)
    payload = replace(PAYLOAD, amt_to_forward=amount_out, outgoing_cltv_value=expiry_out)
    decision = decided(htlc, payload, (replace(CHANNEL, spendable_msat=spendable),))
    if isinstance(decision, Forward):
        assert amount_in >= amount_out + CHANNEL.fee_msat(amount_out)
        assert expiry_in >= expiry_out + CHANNEL.cltv_expiry_delta
        assert HEIGHT < expiry_out <= expiry_in <= HEIGHT + 2016
        assert CHANNEL.htlc_minimum_msat <= amount_out <= spendable
