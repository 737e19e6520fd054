"""One key on two hosts: refused where the other answers, told of where it can be seen, never a hindrance to a restart."""

import base64
import shutil
import socketserver
import threading
import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from onion import published, until, visit

from tor import elsewhere, keyfile, publishing
from tor.config import Config, Control
from tor.descriptor import Answer, Descriptor, answer, parse
from tor.elsewhere import PUBLISHED_AGAIN_S
from tor.errors import Unavailable
from tor.keeper import Elsewhere, Note, Rules, new_state, step
from tor.status import Metrics, status, text

ONION, OTHER = "o" * 56, "p" * 56
PERIOD = b"b" * 32  # the blinded key of a period

WATCH_KEY_S = 4.0
SEEN_S = 60
STARTED_S = 40


def descriptor(blinded_key=PERIOD, signing_key=b"s" * 32, revision=7):
    certificate = bytes((1, 8)) + bytes(4) + bytes((1,)) + signing_key + bytes((1, 0, 32, 4, 0)) + blinded_key
    text = base64.b64encode(certificate + bytes(64)).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return (
        "HS_DESC_CONTENT address id directory\nhs-descriptor 3\ndescriptor-lifetime 180\n"
        f"descriptor-signing-key-cert\n-----BEGIN ED25519 CERT-----\n{lines}\n-----END ED25519 CERT-----\n"
        f"revision-counter {revision}\nsuperencrypted\n-----BEGIN MESSAGE-----\n"
    )


def test_what_a_descriptor_tells():
    assert parse(descriptor()) == Descriptor(PERIOD, b"s" * 32, 7)
    assert parse(descriptor(revision=0)) is None  # made, and not published yet
    assert parse("") is None
    assert parse(descriptor().replace("ED25519 CERT", "SOMETHING")) is None
    assert parse(descriptor()[:200] + "-----END ED25519 CERT-----\nrevision-counter 3\n") is None


def test_what_a_directory_answers():
    key, relay = bytes(32), "F" * 40
    words = f"{ONION} {'A' * 43} ${relay}~name"
    there = descriptor(blinded_key=key).replace("address id directory", words)
    assert answer(there) == Answer(relay, key, Descriptor(key, b"s" * 32, 7))
    assert answer(f"HS_DESC_CONTENT {words}\n") == Answer(relay, key, None)
    assert answer(f"HS_DESC_CONTENT {ONION} {'A' * 43} UNKNOWN\n") is None  # none was asked
    assert answer(f"HS_DESC_CONTENT {ONION} no-base64 ${'F' * 40}~relay") is None
    assert answer("HS_DESC_CONTENT") is None


FILTERED = {
    b"PROTOCOLINFO": b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.4.8.1"\r\n250 OK\r\n',
    b"AUTHENTICATE": b"250 OK\r\n",
}


class Filter(socketserver.StreamRequestHandler):
    """A control port that lets only chosen commands through."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(FILTERED.get(line.split()[0], b"510 Command filtered\r\n"))


def test_a_tor_that_refuses_to_look_is_no_crash(tmp_path):
    path = f"{tmp_path}/control"
    with socketserver.UnixStreamServer(path, Filter) as server:
        threading.Thread(target=server.handle_request).start()
        with pytest.raises(Unavailable, match=f"tor does not look for {ONION}.onion: Command filtered"):
            elsewhere.ask(Config(control=Control(address=f"unix:{path}")), ONION)


def test_a_host_remembers_what_it_published(tmp_path, monkeypatch):
    place, host = tmp_path / "onion", tmp_path / "machine-id"
    host.write_text("here\n")
    monkeypatch.setattr(keyfile, "MACHINE_ID", host)
    assert not keyfile.has_served(place, ONION)
    keyfile.note_served(place, ONION)
    assert keyfile.has_served(place, ONION)
    assert not keyfile.has_served(place, OTHER)
    host.write_text("there\n")  # everything was copied
    assert not keyfile.has_served(place, ONION)


def figure(state):
    figures = {each.name: each for each in Metrics(SimpleNamespace(state=state, config=Config())).collect()}
    return figures["lntor_served_elsewhere"].samples[0].value


def test_another_tor_is_told_of_until_what_it_published_is_forgotten():
    before = new_state(Rules(port=9735, rise=2, fall=2, replace_s=0), ())
    assert figure(before) == 0
    now_s = time.monotonic()
    after, notes = step(before, Elsewhere(), now_s)
    assert [each.event for each in notes if isinstance(each, Note)] == ["served_elsewhere"]
    assert figure(after) == 1
    assert "another tor serves this key" in text(
        status(after, Config(), now_s + 7, publishing.State(announce=True))
    )
    assert figure(replace(after, elsewhere_s=now_s - PUBLISHED_AGAIN_S - 1)) == 0


@pytest.fixture
def second(network):
    """The tor of another host."""
    port = network.free_port()
    made = network.join("second", f"SocksPort 127.0.0.1:{port}", wait=False)
    made.wait_bootstrapped(100, 60)
    yield made
    made.stop()


@pytest.mark.tor
async def test_a_key_that_another_tor_serves_is_not_published_until_that_one_ends(network, lntor, second):
    first = lntor().start()
    address = await first.serving()
    await published(first)
    other = lntor(tor=second)
    shutil.copytree(first.directory / "onion", other.directory / "onion")
    other.start()
    await until(lambda: other.socket.exists() and other.status()["problem"], STARTED_S, "a problem is shown")
    assert "is served by another tor, which answers" in other.status()["problem"]
    assert not other.status()["serving"]
    assert "another tor serves this key" in (await other.call("status"))[1]
    assert "published lately, not from this host" in (await other.call("check"))[1]
    await first.stop()
    assert await other.serving(2 * STARTED_S) == address
    await published(other)
    await until(lambda: visit(network, address), STARTED_S, "reachable at the other tor")


@pytest.mark.tor
async def test_a_restart_is_not_questioned_and_the_other_tor_hears_of_it(network, lntor, second):
    first = lntor(tor=second).start()
    address = await first.serving()
    await published(first)
    shutil.copytree(first.directory / "onion", first.directory / "kept")
    await first.stop()
    shutil.copytree(first.directory / "kept", first.directory / "onion")
    other = lntor(service={"watch_key_s": WATCH_KEY_S})
    shutil.copytree(first.directory / "onion", other.directory / "onion")
    assert await other.start().serving(2 * STARTED_S) == address  # nobody answers: moved here
    await published(other)
    await until(lambda: other.status()["key_compared_ago_s"] is not None, SEEN_S, "its own is known")
    assert other.status()["served_elsewhere_ago_s"] is None
    await first.start().serving()
    _, took_s = await until(lambda: other.status()["served_elsewhere_ago_s"], SEEN_S, "seen")
    print(f"another tor of the same key was seen {took_s:.1f} s after it served")

    async def told():
        code, output = await other.call("check")
        return code == 1 and "another tor serves this key" in output

    await until(told, SEEN_S, "told by check")  # it may meet a directory that was asked a moment ago
