"""BOLT 1: what a session answers, what ends it, and when it looks for its peer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.peer.notice import MAX_NOTICE_CHARACTERS, notice, printable, warning
from node.peer.routing import Route
from node.peer.session import MAX_PING_BURST, NO_PONG, PING_SPACING_S, Session, SessionFault, SessionRules
from node.wire import bolt1
from node.wire.codec import BY_NUMBER, decode, encode
from node.wire.features import Feature, Features

CHAIN, OTHER_CHAIN = bytes([6]) * 32, bytes([7]) * 32
FEATURES = Features.of(
    optional=(Feature.GOSSIP_QUERIES, Feature.OPTION_ANCHORS), compulsory=(Feature.OPTION_STATIC_REMOTEKEY,)
)
RULES = SessionRules(
    features=FEATURES,
    chain_hash=CHAIN,
    init_timeout_s=15,
    ping_interval_s=30,
    ping_spread_s=10,
    ping_timeout_s=60,
)
START_S = 1_000.0
GOSSIP = bytes([1, 2])
PONG_SIZE = 32


def init(features: Features = FEATURES, **fields: bytes) -> bytes:
    return encode(bolt1.Init(b"", features.to_bytes(), **fields))


def fresh(spread: float = 0.0) -> Session:
    session = Session(RULES, START_S, spread)
    session.messages_to_send()
    return session


def ready(spread: float = 0.0) -> Session:
    session = fresh(spread)
    assert session.receive(init(), START_S) is Route.SESSION
    return session


def ping(size: int) -> bytes:
    return encode(bolt1.Ping(size, b""))


def pong(size: int) -> bytes:
    return encode(bolt1.Pong(bytes(size)))


def ends(session: Session, message: bytes, now_s: float = START_S) -> str:
    with pytest.raises(SessionFault) as fault:
        session.receive(message, now_s)
    return fault.value.cause


def test_our_init_goes_out_first_and_once() -> None:
    session = Session(RULES, START_S, 0.0, remote_addr=b"\x01\x01\x02\x03\x04\x26\x07")
    (message,) = session.messages_to_send()
    assert decode(message) == bolt1.Init(
        b"", FEATURES.to_bytes(), networks=CHAIN, remote_addr=b"\x01\x01\x02\x03\x04\x26\x07"
    )
    assert session.messages_to_send() == []
    assert not session.ready


def test_their_init_makes_it_ready() -> None:
    session = fresh()
    features = Features.of(optional=(Feature.OPTION_ANCHORS, Feature.OPTION_SPLICE))
    message = init(features, networks=OTHER_CHAIN + CHAIN, remote_addr=b"\x01\x01\x02\x03\x04\x26\x07")
    assert session.receive(message, START_S) is Route.SESSION
    assert session.ready
    assert session.features == features
    assert session.remote_addr == b"\x01\x01\x02\x03\x04\x26\x07"
    assert session.messages_to_send() == []


def test_both_feature_fields_count() -> None:
    session = fresh()
    session.receive(
        encode(bolt1.Init(b"\x02", Features.of(optional=(Feature.OPTION_ANCHORS,)).to_bytes())), START_S
    )
    assert session.features is not None
    assert session.features.supports(Feature.OPTION_DATA_LOSS_PROTECT)
    assert session.features.supports(Feature.OPTION_ANCHORS)


@pytest.mark.parametrize("first", [ping(1), GOSSIP, b"\x7f\xff", encode(bolt1.Error(bytes(32), b"go away"))])
def test_init_must_come_first(first: bytes) -> None:
    session = fresh()
    assert ends(session, first) == "init_expected"
    assert session.messages_to_send() == []


def test_a_peer_that_turns_us_away_is_quoted() -> None:
    with pytest.raises(SessionFault, match="go away"):
        fresh().receive(encode(bolt1.Error(bytes(32), b"go away")), START_S)


@pytest.mark.parametrize(
    "features",
    [
        Features(1 << 1_000),
        Features.of(compulsory=(Feature.OPTION_SPLICE,)),
        Features.of(optional=(Feature.OPTION_SIMPLE_CLOSE,)),
        Features.of(optional=(Feature.OPTION_ZEROCONF,)),
    ],
    ids=["unknown even", "not ours", "dependency", "another dependency"],
)
def test_features_that_end_the_session(features: Features) -> None:
    assert ends(fresh(), init(features)) == "features"


@pytest.mark.parametrize(
    "features",
    [
        Features(),
        Features(2 << 1_000),
        Features.of(
            compulsory=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET, Feature.OPTION_CHANNEL_TYPE)
        ),
        Features.of(optional=(Feature.BASIC_MPP,)),
    ],
    ids=["none", "unknown odd", "assumed", "dependency assumed"],
)
def test_features_that_do_not(features: Features) -> None:
    session = fresh()
    session.receive(init(features), START_S)
    assert session.ready


def test_another_chain_ends_the_session() -> None:
    assert ends(fresh(), init(networks=OTHER_CHAIN)) == "networks"


@pytest.mark.parametrize(
    "message", [init(networks=CHAIN + b"\0"), encode(bolt1.Init(bytes(2_000), b"")), b"\0\x10\0", b"\0", b""]
)
def test_a_malformed_init(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        fresh().receive(message, START_S)


def test_init_comes_only_once() -> None:
    assert ends(ready(), init()) == "second_init"


def test_routes_of_a_ready_session() -> None:
    session = ready()
    assert session.receive(GOSSIP, START_S) is Route.GOSSIP
    assert session.receive(b"\0\x85", START_S) is Route.BACKEND
    assert session.receive(encode(bolt1.Error(bytes(32), b"")), START_S) is Route.BACKEND
    assert session.receive(b"\x7f\xff", START_S) is Route.IGNORE
    assert session.messages_to_send() == []


def test_unknown_even_messages_end_the_session() -> None:
    assert ends(ready(), b"\x7f\xfe") == "unknown_even"


@pytest.mark.parametrize("size", [0, 1, NO_PONG - 1])
def test_a_ping_is_answered_with_the_size_asked_for(size: int) -> None:
    session = ready()
    assert session.receive(ping(size), START_S) is Route.SESSION
    assert session.messages_to_send() == [pong(size)]


def test_a_ping_that_wants_no_pong_gets_none() -> None:
    session = ready()
    session.receive(ping(NO_PONG), START_S)
    assert session.messages_to_send() == []


def test_a_ping_flood_ends_the_session() -> None:
    session = ready()
    for _ in range(MAX_PING_BURST):
        session.receive(ping(0), START_S)
    assert ends(session, ping(NO_PONG), START_S + 1) == "ping_flood"


def test_steady_pings_are_no_flood() -> None:
    session = ready()
    for turn in range(100):
        session.receive(ping(0), START_S + turn * PING_SPACING_S)
    assert len(session.messages_to_send()) == 100


def test_silence_is_asked_and_then_ended() -> None:
    session = ready()
    assert session.next_deadline() == START_S + 30
    session.check(START_S + 29.9, PONG_SIZE)
    assert session.messages_to_send() == []
    session.check(START_S + 30, PONG_SIZE)
    assert session.messages_to_send() == [ping(PONG_SIZE)]
    assert session.next_deadline() == START_S + 90
    session.check(START_S + 89, PONG_SIZE)
    assert session.messages_to_send() == []
    with pytest.raises(SessionFault) as fault:
        session.check(START_S + 90, PONG_SIZE)
    assert fault.value.cause == "no_pong"


def test_a_pong_measures_and_starts_the_interval_again() -> None:
    session = ready()
    session.check(START_S + 30, PONG_SIZE)
    session.messages_to_send()
    session.receive(pong(PONG_SIZE), START_S + 30.25)
    assert session.latency_s == 0.25
    assert session.messages_to_send() == []
    assert session.next_deadline() == START_S + 60.25


def test_any_message_puts_the_ping_off() -> None:
    session = ready()
    session.receive(GOSSIP, START_S + 20)
    session.check(START_S + 45, PONG_SIZE)
    assert session.messages_to_send() == []


def test_a_busy_peer_with_a_late_pong_stays() -> None:
    session = ready()
    session.check(START_S + 30, PONG_SIZE)
    session.receive(GOSSIP, START_S + 80)
    session.check(START_S + 139, PONG_SIZE)
    assert session.next_deadline() == START_S + 140


def test_a_pong_of_another_size_is_warned_of_once() -> None:
    session = ready()
    session.check(START_S + 30, PONG_SIZE)
    session.messages_to_send()
    session.receive(pong(PONG_SIZE + 1), START_S + 31)
    (answer,) = session.messages_to_send()
    assert isinstance(decode(answer), bolt1.Warning)
    session.receive(pong(PONG_SIZE + 1), START_S + 31)
    assert session.messages_to_send() == []
    assert session.latency_s is None


def test_sessions_of_one_moment_ping_at_different_ones() -> None:
    assert ready(0.0).next_deadline() == START_S + 30
    assert ready(0.5).next_deadline() == START_S + 35


def test_no_init_in_time_ends_the_session() -> None:
    session = fresh()
    session.check(START_S + 14, PONG_SIZE)
    with pytest.raises(SessionFault) as fault:
        session.check(START_S + 15, PONG_SIZE)
    assert fault.value.cause == "no_init"


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=80)
        | st.builds(
            lambda number, rest: number.to_bytes(2, "big") + rest,
            st.sampled_from(sorted(BY_NUMBER)),
            st.binary(max_size=80),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_whatever_comes_a_session_only_ends_or_answers(messages: list[bytes], greeted: bool) -> None:
    session = ready() if greeted else fresh()
    for message in messages:
        try:
            session.receive(message, START_S)
        except (MalformedMessage, SessionFault):
            break
    assert len(session.messages_to_send()) <= len(messages)


@settings(deadline=None)
@given(st.binary(max_size=2_000))
def test_what_a_peer_says_is_safe_to_log(data: bytes) -> None:
    for text in (printable(data), notice(encode(bolt1.Error(bytes(32), data)))):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= MAX_NOTICE_CHARACTERS + 3


def test_plain_text_is_left_alone() -> None:
    assert printable(b"funding tx not found") == "funding tx not found"
    assert printable("caf\u00e9\n\\".encode()) == r"caf\xc3\xa9\x0a\x5c"
    assert notice(warning("pong of 3 bytes")) == "pong of 3 bytes"
