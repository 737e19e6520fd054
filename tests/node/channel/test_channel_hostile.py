"""No message of a peer, at any moment, raises out of a step or makes money."""

import msgspec
from channel_pair import FEATURES, FEERATES, SIMPLE_CLOSE, Pair
from hypothesis import given, settings
from hypothesis import strategies as st

from node.channel import effects as fx
from node.channel.events import Connected, Disconnected, FailMalformed, Received, Shutdown, Sign, UpdateFee
from node.channel.model import ENDED, OPENING, Phase, decode, encode
from node.channel.step import step
from node.wire import codec

NUMBERS = st.sampled_from([0, 1, 2, 3, 252, 253, 1_000, 10**6, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
MAX_BY_FIELD = {
    "cltv_expiry": 2**32 - 1,
    "feerate_per_kw": 2**32 - 1,
    "minimum_depth": 2**32 - 1,
    "locktime": 2**32 - 1,
    "failure_code": 2**16 - 1,
    "funding_output_index": 2**16 - 1,
    "to_self_delay": 2**16 - 1,
    "max_accepted_htlcs": 2**16 - 1,
    "channel_flags": 255,
}


def record():
    """Every channel state of some whole lives, and every message that was said in them."""
    states, messages = [], []
    for features in (FEATURES, SIMPLE_CLOSE):
        pair = Pair(features=features).open(announce=True)
        live(pair, states, messages)
    return states, messages


def live(pair, states, messages):
    original = pair.deliver

    def deliver(sender):
        states.extend((end.channel, end.keys, end.policy) for end in pair.ends if end.channel is not None)
        message = original(sender)
        messages.append(message)
        return message

    pair.deliver = deliver
    pair.settle()
    pair.confirm()
    pair.settle()
    ids = [pair.add(pair.alice, seed=1), pair.add(pair.alice, seed=2), pair.add(pair.alice, 200_000, 3)]
    pair.add(pair.bob)
    pair.alice.do(UpdateFee(3_000))
    pair.settle()
    pair.fulfill(pair.bob, ids[0], 1)
    pair.fail(pair.bob, ids[1])
    pair.alice.do(Sign())
    pair.disconnect()
    pair.reconnect()
    pair.settle()
    pair.fulfill(pair.bob, ids[2], 3)
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    pair.alice.do(FailMalformed(0, bytes(32), 0xC005))
    pair.settle()
    assert pair.alice.channel.phase is Phase.CLOSING


STATES, MESSAGES = record()
KINDS = sorted({type(message).__name__ for message in MESSAGES})


@st.composite
def said(draw):
    """A message of some life, perhaps with fields that no honest peer would send."""
    kind = draw(st.sampled_from(KINDS))
    message = draw(st.sampled_from([m for m in MESSAGES if type(m).__name__ == kind]))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(type(message).__struct_fields__))
        message = msgspec.structs.replace(message, **{name: mutated(draw, name, getattr(message, name))})
    return codec.decode(codec.encode(message))


def mutated(draw, name, value):
    match value:
        case bool() | None:
            return value
        case int():
            return min(draw(NUMBERS), MAX_BY_FIELD.get(name, 2**64 - 1))
        case bytes() if name.endswith("script") or name in {"scriptpubkey", "reason", "channel_type"}:
            return draw(st.binary(max_size=80))
        case bytes():
            return draw(st.sampled_from([bytes(len(value)), b"\x02" * len(value), b"\xff" * len(value)]))
        case tuple():
            return draw(st.sampled_from([(), value + value, tuple(reversed(value))]))
        case _:
            return value


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STATES), st.lists(said(), min_size=1, max_size=3))
def test_no_message_raises_and_every_answer_is_orderly(state, messages):
    ch, keys, policy = state
    for message in messages:
        after, effects = step(ch, Received(message), keys, policy)
        assert decode(encode(after)) == after
        kinds = [type(effect) for effect in effects]
        if after.phase is Phase.FORCE_CLOSED and ch.phase not in ENDED:
            assert ch.phase not in OPENING
            assert kinds.index(fx.Store) < kinds.index(fx.Publish)
        for effect in effects:
            if isinstance(effect, fx.Send):
                codec.encode(effect.message)
        ch = after
    for event in (Disconnected(), Connected(FEATURES)):
        ch, _ = step(ch, event, keys, policy)


def test_the_lives_recorded_say_everything():
    opening = {"AcceptChannel", "FundingCreated", "FundingSigned", "ChannelReady"}
    closing = {"Shutdown", "ClosingSigned", "ClosingComplete", "ClosingSig"}
    updates = {"UpdateAddHtlc", "UpdateFulfillHtlc", "UpdateFailHtlc", "UpdateFailMalformedHtlc", "UpdateFee"}
    assert opening | closing | updates < set(KINDS)
