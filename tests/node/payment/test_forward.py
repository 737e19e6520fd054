"""Forwards: a preimage always finds its way up, a failure only where there is none."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from node.crypto.failures import build_failure, unwrap_failure
from node.payment.forward import Failed, Forward, Fulfilled, Malformed, NotOffered, Offered, step
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc
from node.wire import bolt4
from node.wire.bolt4 import decode_failure

OURS, THEIRS = b"\x01" * 32, b"\x02" * 32
PREIMAGE = b"\x03" * 32
UP = HtlcKey(b"\x0a" * 32, offered=False, htlc_id=1)
DOWN = HtlcKey(b"\x0b" * 32, offered=True, htlc_id=1)
FORWARD = Forward(
    upstream=UP,
    shared_secret=OURS,
    payment_hash=b"\x04" * 32,
    amount_in_msat=1_100,
    amount_out_msat=1_000,
    cltv_expiry_in=140,
    cltv_expiry_out=100,
)


def failure_of(effects, secrets):
    (effect,) = effects
    assert isinstance(effect, FailHtlc)
    assert effect.key == UP
    index, message = unwrap_failure(secrets, effect.reason)
    return index, decode_failure(message)


def test_a_preimage_settles_upstream():
    forward, effects = step(FORWARD, Offered(DOWN))
    assert (forward.downstream, effects) == (DOWN, ())
    forward, effects = step(forward, Fulfilled(PREIMAGE))
    assert effects == (SettleHtlc(UP, PREIMAGE),)
    assert forward.fee_msat == 100
    assert msgpack.decode(msgpack.encode(forward), type=Forward) == forward


def test_a_failure_gets_our_layer():
    packet = build_failure(THEIRS, bolt4.encode_failure(bolt4.MppTimeout()))
    _, effects = step(FORWARD, Failed(packet))
    assert failure_of(effects, (OURS, THEIRS)) == (1, bolt4.MppTimeout())


def test_a_malformed_onion_becomes_a_failure_of_ours():
    _, effects = step(FORWARD, Malformed(b"\x05" * 32, 0xC005))
    assert failure_of(effects, (OURS, THEIRS)) == (0, bolt4.InvalidOnionHmac(b"\x05" * 32))


def test_what_was_never_offered():
    _, effects = step(FORWARD, NotOffered())
    assert failure_of(effects, (OURS,)) == (0, bolt4.TemporaryChannelFailure(b""))


def test_what_the_chain_removed():
    _, effects = step(FORWARD, Failed(b""))
    assert failure_of(effects, (OURS,)) == (0, bolt4.PermanentChannelFailure())


EVENTS = st.lists(
    st.sampled_from(
        (
            Offered(DOWN),
            NotOffered(),
            Fulfilled(PREIMAGE),
            Failed(b"x" * 292),
            Failed(b""),
            Malformed(b"\x05" * 32, 0xC005),
        )
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_never_fail_what_has_a_preimage(events):
    forward, learned = FORWARD, False
    for event in events:
        forward, effects = step(forward, event)
        if isinstance(event, Fulfilled):
            learned = True
            assert effects == (SettleHtlc(UP, PREIMAGE),)
        elif learned:
            assert effects == ()
