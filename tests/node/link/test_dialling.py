"""What frontends are told of dialling, in a Welcome: its stored encoding, and what older releases make of it."""

import msgspec

from node.link import frames
from node.link import messages as m

KEY, POINT = bytes(range(32)), b"\x02" + bytes(range(32))
WELCOME = m.Welcome(
    1,
    7,
    POINT,
    KEY,
    b"\x80",
    42,
    dialling=m.Dialling("127.0.0.1:9050", "never", "proxy", "proxy", "proxy", isolate=False, only=True),
)
GOLDEN = (
    "87a5736f636b73ae3132372e302e302e313a39303530a56f6e696f6ea56e65766572a469707634a570726f7879a469707636a570726f7879"
    "a3646e73a570726f7879a769736f6c617465c2a46f6e6c79c3"
)


def test_the_encoding_is_what_the_last_release_wrote():
    assert msgspec.msgpack.encode(WELCOME.dialling).hex() == GOLDEN
    ((_, body),) = frames.FrameReader().receive(frames.control(WELCOME))
    assert bytes.fromhex(GOLDEN) in body
    assert frames.decode_to_frontend(body) == WELCOME


def test_a_backend_that_says_nothing_of_it_has_everything_dialled_directly():
    fields = msgspec.msgpack.decode(frames.control(WELCOME)[5:])
    del fields["dialling"]
    welcome = frames.decode_to_frontend(msgspec.msgpack.encode(fields))
    assert isinstance(welcome, m.Welcome)
    assert [welcome.dialling.way(kind) for kind in ("ipv4", "ipv6", "dns")] == ["direct"] * 3


def test_what_a_newer_backend_says_besides_is_ignored_and_a_kind_that_is_not_known_is_never_dialled():
    fields = msgspec.msgpack.decode(frames.control(WELCOME)[5:])
    fields["dialling"]["i2p"] = "proxy"
    assert frames.decode_to_frontend(msgspec.msgpack.encode(fields)) == WELCOME
    assert WELCOME.dialling.way("i2p") == "never"
