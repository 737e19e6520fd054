"""Telling the backend: when, of what, and what is said where it does not take it. No Tor in here."""

import asyncio
import socket
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

from node import certs
from node.backend.api import Api
from node.backend.commands import Commands
from node.errors import Refused as Refusal
from node.runtime.http_server import HttpServer
from tor import backend
from tor.check import BAD, GOOD, WARNING, findings
from tor.config import Admin, Config, Service, Target
from tor.config import Backend as Settings
from tor.config import Control as ControlSettings
from tor.errors import Refused, Unavailable
from tor.keeper import Note, Rules, new_state
from tor.publishing import (
    LAST_RETRY_S,
    SAY_AGAIN_S,
    STAYS,
    Failed,
    Known,
    State,
    Tell,
    Tick,
    Told,
    is_announced,
    step,
)
from tor.status import Metrics, status, text

ONION, OTHER = f"{'o' * 56}.onion:9735", f"{'p' * 56}.onion:9735"
ONE, TWO = "10.0.0.2:9741", "10.0.0.3:9741"
# Until a thread was tried that nobody answers; half of it would do on any machine.
SOON_S = 10


class Play:
    """The state fed with events, on a clock of its own."""

    def __init__(self, *, announce=True):
        self.state, self.now_s, self.notes = State(announce), 100.0, []

    def __call__(self, *events):
        """The effects of these events; log lines are kept apart."""
        effects = []
        for event in events:
            self.state, more = step(self.state, event, self.now_s)
            effects += [each for each in more if not isinstance(each, Note)]
            self.notes += [each for each in more if isinstance(each, Note)]
        return effects

    def until_told(self):
        """Seconds until the backend is told again, and what."""
        began_s = self.now_s
        while not (effects := self(Tick())):
            self.now_s += 0.25
        return self.now_s - began_s, effects


def test_the_backend_is_told_once_the_address_is_known_and_again_every_minute():
    play = Play()
    assert play(Tick()) == []
    assert play(Known(ONION)) == [Tell(ONION, announce=True, api="")]
    assert play(Known(ONION), Tick()) == []  # one at a time
    assert play(Told(ONION, ONE, announced=True)) == []
    assert is_announced(play.state)
    for _ in range(3):
        assert play.until_told() == (SAY_AGAIN_S, [Tell(ONION, announce=True, api=ONE)])
        play(Told(ONION, ONE, announced=True))
    assert [note.event for note in play.notes] == ["announced"]


def test_what_is_not_to_be_announced_is_taken_back_again_and_again():
    play = Play(announce=False)
    assert play(Known(ONION)) == [Tell(ONION, announce=False, api="")]
    play(Told(ONION, ONE, announced=False))
    assert not play.state.problem
    assert play.until_told() == (SAY_AGAIN_S, [Tell(ONION, announce=False, api=ONE)])
    play(Told(ONION, ONE, announced=True))
    assert play.state.problem == STAYS
    assert [note.level for note in play.notes] == ["info", "warning"]


def test_a_backend_that_is_away_is_tried_ever_more_slowly_and_complained_of_once():
    play = Play()
    play(Known(ONION))
    pauses_s = []
    for _ in range(9):
        play(Failed(ONION, "nobody answers"))
        pauses_s.append(play.until_told()[0])
    assert pauses_s == [1, 2, 4, 8, 16, 32, 60, 60, LAST_RETRY_S]
    assert len(play.notes) == 1
    play(Failed(ONION, "wrong password"))
    assert len(play.notes) == 2
    play.until_told()
    play(Told(ONION, ONE, announced=True))
    assert (is_announced(play.state), play.state.problem, play.state.retries) == (True, "", 0)


def test_while_it_is_away_it_is_not_announced_and_another_may_take_over():
    play = Play()
    play(Known(ONION), Told(ONION, ONE, announced=True))
    play.until_told()
    play(Failed(ONION, "nobody answers"))
    assert not is_announced(play.state)
    assert play.until_told() == (1, [Tell(ONION, announce=True, api=ONE)])
    play(Told(ONION, TWO, announced=True))
    assert (is_announced(play.state), play.state.api) == (True, TWO)
    assert [note.event for note in play.notes] == ["announced", "backend_not_told", "announced"]


def test_answers_about_an_address_that_was_ours_do_not_count():
    play = Play()
    play(Known(ONION))
    assert play(Known(OTHER)) == []
    assert play(Told(ONION, ONE, announced=True)) == [Tell(OTHER, announce=True, api="")]
    assert play.state.announced is None
    assert play(Known(ONION), Failed(OTHER, "no")) == [Tell(ONION, announce=True, api="")]
    assert not play.state.problem


def picture(told, announce=True):
    config = Config(backend=Settings(api=(ONE, TWO)), service=Service(announce=announce))
    keeper = new_state(Rules(9735, 2, 2, 0.0), config.targets)
    return status(keeper, config, 110.0, told)


def test_status_says_what_became_of_it():
    play = Play()
    assert picture(play.state)["backend"] == {
        "announce": True, "announced": False, "api": None, "told_ago_s": None, "problem": None
    }  # fmt: skip
    assert "announced   not yet: the backend is told once tor" in text(picture(play.state))
    play(Known(ONION), Told(ONION, ONE, announced=True))
    assert picture(play.state)["backend"]["announced"] is True
    assert f"announced   yes; taken 10 s ago by {ONE}" in text(picture(play.state))
    play.now_s += SAY_AGAIN_S
    play(Tick(), Failed(ONION, "nobody answers"))
    assert picture(play.state)["backend"]["announced"] is False
    assert f"announced   PROBLEM: nobody answers (last taken: 10 s ago by {ONE})" in text(picture(play.state))
    play = Play(announce=False)
    play(Known(ONION), Told(ONION, ONE, announced=False))
    assert f"announced   no, by service.announce; taken 10 s ago by {ONE}" in text(picture(play.state))
    assert "announced" not in text(status(new_state(Rules(9735, 2, 2, 0.0), ()), Config(), 1.0, play.state))


@pytest.mark.parametrize("api", [(ONE,), ()])
def test_there_is_a_figure_for_it_where_a_backend_is_named(api):
    play = Play()
    config = Config(backend=Settings(api=api))
    shown = SimpleNamespace(
        state=new_state(Rules(9735, 2, 2, 0.0), ()),
        config=config,
        publisher=SimpleNamespace(state=play.state),
    )
    figures = [_figure(shown)]
    play(Known(ONION), Told(ONION, ONE, announced=True))
    shown.publisher.state = play.state
    figures.append(_figure(shown))
    assert figures == ([0.0, 1.0] if api else [None, None])


def _figure(shown):
    found = {each.name: each.samples for each in Metrics(shown).collect()}
    return found["lntor_announced"][0].value if "lntor_announced" in found else None


# the client


class Node(Commands):
    """A backend's API, and what it was told."""

    def __init__(self):
        self.told, self.refuses = [], ""

    async def onion_address(self, *, address: str = "", announce: bool = True):
        if self.refuses:
            raise Refusal(self.refuses)
        self.told.append((address, announce))
        return {"address": address, "announced": announce and bool(address)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("certs") / "ours"
    runner = CliRunner()
    for words in (["init"], ["issue", "main", "--role", "backend"], ["issue", "f1"]):
        assert runner.invoke(certs.app, [*words, "--dir", str(place)]).exit_code == 0
    assert runner.invoke(certs.app, ["init", "--dir", str(place.parent / "other")]).exit_code == 0
    for name, secret in (("password", "tor alone\n"), ("wrong", "guess\n"), ("open", "tor alone\n")):
        (place / name).write_text(secret)
        (place / name).chmod(0o644 if name == "open" else 0o640)
    return place


@asynccontextmanager
async def serving(application, place, certificate, address="127.0.0.1:0"):
    files = (str(place / f"{certificate}.pem"), str(place / f"{certificate}.key")) if certificate else None
    server = HttpServer(application, address, files)
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()


def api_of(node):
    return Api(node, "pass word", "eyes only", "tor alone").application


def settings_for(place, *apis, authority="authority.pem", password="password"):
    return Settings(
        api=apis,
        authority=str(place / authority) if authority else "",
        password_file=str(place / password) if password else "",
    )


async def told(settings, address=ONION, *, announce=True, first=""):
    return await asyncio.to_thread(backend.tell, settings, address, announce=announce, first=first)


async def test_over_tls_with_the_password_it_is_taken(place):
    node = Node()
    async with serving(api_of(node), place, "main") as api:
        settings = settings_for(place, api)
        assert await told(settings) == backend.Answer(api, announced=True)
        assert await told(settings, announce=False) == backend.Answer(api, announced=False)
    assert node.told == [(ONION, True), (ONION, False)]


async def test_on_this_host_it_may_be_in_clear_or_a_socket(place, tmp_path):
    node = Node()
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/api"):
        async with serving(api_of(node), place, None, address) as api:
            assert (await told(settings_for(place, api, authority=""))).announced
    assert len(node.told) == 2


@pytest.mark.parametrize(
    ("certificate", "more", "says"),
    [
        ("main", {"password": "wrong"}, "wrong password; write the backend's api_onion_password into "),
        ("main", {"password": ""}, "asks for a password; write the backend's api_onion_password into a file"),
        ("main", {"password": "open"}, "everybody here can read it; chmod 640 "),
        (
            "main",
            {"password": "none"},
            "backend.password_file: .*: No such file .*; let lntor's user read it",
        ),
        (
            "main",
            {"authority": "../other/authority.pem"},
            r"is not a backend's of this authority \(.*signature",
        ),
        ("f1", {}, r"is not a backend's of this authority \(unsuitable certificate purpose"),
        ("main", {"authority": "none.pem"}, "backend.authority: .*none.pem: No such file .*; copy the auth"),
        ("main", {"authority": "main.key"}, "backend.authority: .*main.key: holds no certificate; copy"),
        ("main", {"authority": ""}, "nobody answers|if the backend has api_tls, set backend.authority"),
        (None, {}, "no TLS there .*; set api_tls at the backend, or mend backend.api"),
    ],
)
async def test_what_is_wrong_is_said_with_its_remedy(place, certificate, more, says):
    node = Node()
    async with serving(api_of(node), place, certificate) as api:
        with pytest.raises(Unavailable, match=says):
            await told(settings_for(place, api, **more))
    assert node.told == []


async def test_what_the_backend_says_comes_through(place):
    node = Node()
    node.refuses = "onion_address: tor.announce is false"
    async with serving(api_of(node), place, "main") as api:
        with pytest.raises(Unavailable, match=f"{api}: onion_address: tor.announce is false"):
            await told(settings_for(place, api))


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (
            Response(b'{"error": "no such call; there are: getinfo"}', 404),
            "an older release; upgrade the backend",
        ),
        (PlainTextResponse("Not Found", 404), "is no backend's API; backend.api is what the backend has in"),
        (Response(b"[1]"), "is no backend's API"),
        (Response(b"[" * 60_000), "is no backend's API"),
        (Response(b"{}"), "status 200"),
        (Response(b'{"announced": "yes"}'), "status 200"),
        (Response(b'{"announced": true}', 503), "status 503"),
        (Response(b'{"error": "' + b"x" * 5_000 + b'"}', 400), "x{400}$"),
        (Response(b"1" * 200_000), "is no backend's API|status 200"),
    ],
)
async def test_whatever_answers_only_a_backend_is_taken_for_one(place, response, says):
    async def answer(_):
        return response

    application = Starlette(routes=[Route("/{name}", answer, methods=["POST"])])
    async with serving(application, place, None) as api:
        with pytest.raises(Unavailable, match=says):
            await told(settings_for(place, api, authority=""))


async def test_a_standby_is_passed_over_and_whoever_took_it_is_asked_first(place):
    node, other = Node(), Node()
    other.refuses = "onion_address: this backend does not lead; ask the one that does"
    async with (
        serving(api_of(node), place, "main") as leads,
        serving(api_of(other), place, "main") as stands_by,
    ):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            dead = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_for(place, dead, stands_by, leads)
        assert (await told(settings)).api == leads
        assert (await told(settings, first=leads)).api == leads
        node.refuses = other.refuses
        with pytest.raises(Unavailable) as failed:
            await told(settings)
    said = str(failed.value)
    assert said.startswith(f"{dead}: nobody answers (Connection refused); {stands_by}: ")
    assert said.count("does not lead") == 2


def speaker(raw):
    """Says this to whoever comes, and no more."""

    async def serve(reader, writer):
        writer.write(raw)
        await writer.drain()
        await reader.read()
        writer.close()

    return serve


async def test_who_says_nothing_or_nonsense_is_left_in_time(place, monkeypatch):
    monkeypatch.setattr(backend, "TIMEOUT_S", 0.2)
    for raw, says in ((b"", "nobody answers within 0.2 s"), (b"220 mail\r\n", "no HTTP there")):
        server = await asyncio.start_server(speaker(raw), "127.0.0.1", 0)
        api = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(SOON_S):
            with pytest.raises(Unavailable, match=says):
                await told(settings_for(place, api, authority=""))
        server.close()


def test_a_host_name_that_is_none_is_no_crash(place):
    with pytest.raises((Unavailable, Refused)):
        backend.ask(settings_for(place, "a..b:1"), "a..b:1", announce=True)


# lntor check


async def test_check_asks_each_of_them_and_changes_nothing(place, tmp_path):
    node, other = Node(), Node()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        silent = f"127.0.0.1:{taken.getsockname()[1]}"
    async with serving(api_of(node), place, "main") as leads, serving(api_of(other), place, "f1") as impostor:
        found = await checked(settings_for(place, leads, silent, impostor), tmp_path)
        assert found[0] == (GOOD, f"backend {leads}", "takes the address")
        assert found[1][:2] == (BAD, f"backend {impostor}")
        assert "certificate is not a backend's of this authority" in found[1][2]
        assert found[2] == (
            WARNING, f"backend {silent}", "nobody answers (Connection refused); right for a standby"
        )  # fmt: skip
        assert {address for address, _ in node.told} == {""}
        wrong = await checked(settings_for(place, silent, leads, password="wrong"), tmp_path)
        assert [level for level, _, _ in wrong] == [BAD, WARNING]
        assert "wrong password" in wrong[0][2]
    (nobody,) = await checked(settings_for(place, leads), tmp_path)
    assert nobody[0] == BAD
    assert nobody[2].endswith("start it, or mend backend.api or the firewall")


async def checked(settings, tmp_path):
    config = Config(
        control=ControlSettings(address=f"unix:{tmp_path}/none"),
        service=Service(directory=str(tmp_path / "onion")),
        targets=(Target(address="127.0.0.1:1"),),
        backend=settings,
        admin=Admin(socket=str(tmp_path / "admin")),
    )
    found = await findings(config)
    return [(each.level, each.about, each.text) for each in found if each.about.startswith("backend ")]
