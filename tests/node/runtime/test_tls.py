"""The private network: members come in, strangers and the revoked do not, and both sides say why."""

import asyncio
import datetime as dt
import os
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Self

import pytest
import uvloop
from structlog.testing import capture_logs
from typer.testing import CliRunner

from node import certs
from node.errors import Refused
from node.runtime import certificates as made
from node.runtime.addresses import split_address
from node.runtime.certificates import Role
from node.runtime.config import BackendConfig, FrontendConfig, TlsConfig, load
from node.runtime.http_server import HttpServer
from node.runtime.runtime import SystemRuntime
from node.runtime.tls import Tls, peer_of
from node.runtime.tls_listener import MAX_HANDSHAKES

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
PATIENCE_S = 10.0


def lnnode_certs(*arguments: str) -> str:
    done = CliRunner().invoke(certs.app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("certs") / "ours"
    lnnode_certs("init", "--dir", str(place))
    lnnode_certs("issue", "main", "--role", "backend", "--dir", str(place))
    for name in ("f1", "f2"):
        lnnode_certs("issue", name, "--dir", str(place))
    return place


def config(place: Path, name: str, **other: str) -> TlsConfig:
    files = {
        "certificate": f"{place / name}.pem",
        "key": f"{place / name}.key",
        "authority": f"{place / 'authority.pem'}",
        "revoked": f"{place / 'revoked.pem'}",
    }
    return TlsConfig(**files | other)


def backend(place: Path) -> Tls:
    return Tls(config(place, "main"), Role.BACKEND, time.time)


def frontend(place: Path, name: str = "f1") -> Tls:
    return Tls(config(place, name), Role.FRONTEND, time.time)


class End(asyncio.Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.transport: asyncio.Transport | None = None
        self.changed = asyncio.Event()
        self.lost = False

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.changed.set()

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.changed.set()

    def connection_lost(self, exc) -> None:
        self.lost = True
        self.changed.set()

    async def until(self, true) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self.changed.clear()
                await self.changed.wait()


class Port:
    """A backend's link port."""

    def __init__(self, tls: Tls) -> None:
        self.runtime = SystemRuntime(lambda *_: None)
        self.tls = tls
        self.ends: list[End] = []
        self.came = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.listener = await self.runtime.listen("127.0.0.1:0", self._end, tls=self.tls)
        return self

    async def __aexit__(self, *_) -> None:
        self.listener.close()
        for end in self.ends:
            end.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)

    def _end(self) -> End:
        self.ends.append(End())
        self.came.set()
        return self.ends[-1]

    async def connect(self, tls: Tls) -> End:
        end = await self.runtime.connect(self.listener.address, End, tls=tls)
        assert isinstance(end, End)
        return end


def run(new_loop, work) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_members_know_each_other_by_name(place, new_loop) -> None:
    async def work() -> None:
        async with Port(backend(place)) as port:
            end = await port.connect(frontend(place))
            end.transport.write(b"hello")
            await asyncio.wait_for(port.came.wait(), PATIENCE_S)
            (other,) = port.ends
            await other.until(lambda: other.got == b"hello")
            other.transport.write(b"welcome")
            await end.until(lambda: end.got == b"welcome")
            assert peer_of(other.transport).name == "f1"
            assert peer_of(other.transport).role is Role.FRONTEND
            assert peer_of(end.transport).name == "main"
            assert end.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            end.transport.abort()
            await other.until(lambda: other.lost)

    run(new_loop, work)


def client_context(place: Path, *, certificate: bool, version=ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(place / "authority.pem")
    context.maximum_version = version
    if certificate:
        context.load_cert_chain(place / "f1.pem", place / "f1.key")
    return context


async def stranger(port: Port, context: ssl.SSLContext | None, says: bytes = b"") -> None:
    """Comes to the port and waits until it is let go."""
    _, host, number = split_address(port.listener.address)
    name = None if context is None else ""
    try:
        reader, writer = await asyncio.open_connection(host, number, ssl=context, server_hostname=name)
        writer.write(says)
        async with asyncio.timeout(PATIENCE_S):
            await reader.read(100_000)
            await reader.read(100_000)
        writer.close()
    except OSError:  # TLS's errors among them
        pass


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("what", ["plain bytes", "silence", "no certificate", "TLS 1.2"])
def test_a_stranger_is_let_go_without_a_trace(place, tmp_path, new_loop, what, monkeypatch) -> None:
    monkeypatch.setattr("node.runtime.tls_listener.HANDSHAKE_TIMEOUT_S", 0.5)

    async def work() -> None:
        async with Port(backend(place)) as port:
            with capture_logs() as lines:
                context = {
                    "no certificate": lambda: client_context(place, certificate=False),
                    "TLS 1.2": lambda: client_context(
                        place, certificate=True, version=ssl.TLSVersion.TLSv1_2
                    ),
                }.get(what, lambda: None)()
                await stranger(
                    port, context, b"GET / HTTP/1.1\r\n\r\n" * 10 if what == "plain bytes" else b""
                )
                while port.listener._handshakes:
                    await asyncio.wait(port.listener._handshakes, timeout=PATIENCE_S)
            assert not port.ends
            assert not port.tls._live
            assert [line["event"] for line in lines] == ["link_refused"]
            assert lines[0]["address"].startswith("127.0.0.1:")

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_strangers_who_hold_every_place_do_not_keep_members_out(place, new_loop) -> None:
    async def work() -> None:
        async with Port(backend(place)) as port:
            _, host, number = split_address(port.listener.address)
            silent = [await asyncio.open_connection(host, number) for _ in range(MAX_HANDSHAKES + 5)]
            end = await port.connect(frontend(place))
            await asyncio.wait_for(port.came.wait(), PATIENCE_S)
            assert len(port.listener._handshakes) <= MAX_HANDSHAKES
            end.transport.abort()
            for _, writer in silent:
                writer.transport.abort()
            while port.listener._handshakes:
                await asyncio.wait(port.listener._handshakes, timeout=PATIENCE_S)

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_tls_hello_that_comes_drop_by_drop_has_its_time_and_no_more(place, new_loop, monkeypatch) -> None:
    monkeypatch.setattr("node.runtime.tls_listener.HANDSHAKE_TIMEOUT_S", 0.3)
    hello = ssl.MemoryBIO()
    client = client_context(place, certificate=True).wrap_bio(ssl.MemoryBIO(), hello)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    drops = hello.read()[:-1]

    async def work() -> None:
        async with Port(backend(place)) as port:
            _, host, number = split_address(port.listener.address)
            reader, writer = await asyncio.open_connection(host, number)
            gone = asyncio.ensure_future(reader.read(100))
            with capture_logs() as lines:
                for drop in drops:
                    writer.write(bytes([drop]))
                    await asyncio.wait((gone,), timeout=0.01)
                    if gone.done():
                        break
                assert gone.done(), "it had seconds for its whole hello"
                while port.listener._handshakes:
                    await asyncio.wait(port.listener._handshakes, timeout=PATIENCE_S)
            assert [line["event"] for line in lines] == ["link_refused"]
            assert not port.ends
            writer.transport.abort()
            await asyncio.wait((gone,))
            gone.exception()

    run(new_loop, work)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Another authority."""
    place = tmp_path_factory.mktemp("certs") / "theirs"
    lnnode_certs("init", "--dir", str(place))
    lnnode_certs("issue", "f1", "--dir", str(place))
    return place


def bad_context(kind: str, place: Path, elsewhere: Path, tmp_path: Path) -> ssl.SSLContext:
    """A frontend whose certificate is no good; it does not know that."""
    context = client_context(place, certificate=False)
    if kind == "unknown":
        context.load_cert_chain(elsewhere / "f1.pem", elsewhere / "f1.key")
        return context
    authority = made.Issued((place / "authority.pem").read_bytes(), (place / "authority.key").read_bytes())
    then = dt.datetime.now(dt.UTC) - dt.timedelta(days=10 if kind == "expired" else 0)
    issued = made.issue(authority, "f9", Role.BACKEND if kind == "wrong role" else Role.FRONTEND, then, 5)
    (tmp_path / "f9.pem").write_bytes(issued.certificate + issued.key)
    context.load_cert_chain(tmp_path / "f9.pem")
    return context


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("unknown", "no good: unable to get local issuer|signature failure|self"),
        ("expired", "no good: certificate has expired"),
        ("wrong role", "no good: un.* purpose"),
    ],
)
@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_certificate_that_is_no_good_gets_nowhere(place, elsewhere, tmp_path, new_loop, kind, says) -> None:
    async def work() -> None:
        async with Port(backend(place)) as port:
            with capture_logs() as lines:
                context = bad_context(kind, place, elsewhere, tmp_path)
                await stranger(port, context)
                while port.listener._handshakes:
                    await asyncio.wait(port.listener._handshakes, timeout=PATIENCE_S)
            assert not port.ends
            (line,) = [line for line in lines if line["event"] == "link_refused"]
            assert re.search(says, line["cause"]), line["cause"]

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_frontend_refuses_a_backend_that_is_none(place, new_loop) -> None:
    """Another member's certificate on the backend's port: who took a frontend over can't play the backend."""

    async def work() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place / "f2.pem", place / "f2.key")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(End, "127.0.0.1", 0, ssl=context)
        host, number = server.sockets[0].getsockname()
        runtime = SystemRuntime(lambda *_: None)
        with pytest.raises(ConnectionRefusedError, match=r"TLS: its certificate is no good: un.* purpose"):
            await runtime.connect(f"{host}:{number}", End, tls=frontend(place))
        server.close()
        await asyncio.sleep(0)

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_revocation_ends_the_running_link_and_lets_nobody_in_again(tmp_path, new_loop) -> None:
    place = tmp_path / "certs"
    lnnode_certs("init", "--dir", str(place))
    lnnode_certs("issue", "main", "--role", "backend", "--dir", str(place))
    for name in ("f1", "f2"):
        lnnode_certs("issue", name, "--dir", str(place))

    async def work() -> None:
        async with Port(backend(place)) as port:
            first, second = [await port.connect(frontend(place, name)) for name in ("f1", "f2")]
            while len(port.ends) < 2:
                port.came.clear()
                await asyncio.wait_for(port.came.wait(), PATIENCE_S)
            lnnode_certs("revoke", "f1", "--dir", str(place))
            with capture_logs() as lines:
                port.tls.sweep()
                await first.until(lambda: first.lost)
            assert not second.lost
            assert ("link_revoked", "f1") in [(line["event"], line.get("member")) for line in lines]

            with capture_logs() as lines:
                again = await port.runtime.connect(port.listener.address, End, tls=frontend(place, "f1"))
                await again.until(lambda: again.lost)
                while port.listener._handshakes:
                    await asyncio.wait(port.listener._handshakes, timeout=PATIENCE_S)
            assert len(port.ends) == 2
            assert any("is revoked since" in line.get("cause", "") for line in lines)

            lnnode_certs("issue", "f1", "--dir", str(place))
            renewed = await port.connect(frontend(place, "f1"))
            assert not renewed.lost

            lnnode_certs("revoke", "main", "--dir", str(place))
            with pytest.raises(ConnectionRefusedError, match=r'TLS: "main", certificate .* is revoked'):
                await port.connect(frontend(place, "f2"))

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_one_certificate_for_all(tmp_path, place, new_loop) -> None:
    lnnode_certs("init", "--shared", "--dir", str(tmp_path))
    files = {"authority": f"{tmp_path / 'shared.pem'}", "revoked": ""}
    shared = config(tmp_path, "shared", **files)

    async def work() -> None:
        async with Port(Tls(shared, Role.BACKEND, time.time)) as port:
            end = await port.connect(Tls(shared, Role.FRONTEND, time.time))
            assert peer_of(end.transport).speaks_for("any name")
            with pytest.raises(ConnectionRefusedError, match=r"TLS: its certificate is no good"):
                await port.connect(frontend(place))

    run(new_loop, work)


def test_show_lists_who_has_what(place) -> None:
    lines = lnnode_certs("show", "--dir", str(place)).splitlines()

    assert lines[0].startswith("authority until")
    assert [line.split("  ")[:2] for line in lines[1:]] == [
        ["f1", "frontend"],
        ["f2", "frontend"],
        ["main", "backend"],
    ]
    assert all(line.endswith("good") for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init"], "is there already"),
        (["issue", "a b"], "is no name"),
        (["issue", "../f1"], "is no name"),
        (["issue", "authority"], "name of its own"),
        (["revoke", "nobody"], 'nothing was issued to "nobody"'),
    ],
)
def test_certs_say_what_is_wrong(place, arguments, says) -> None:
    with pytest.raises(Refused, match=says):
        lnnode_certs(*arguments, "--dir", str(place))


def test_keys_are_their_owners_alone(place) -> None:
    for path in place.glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0


def spoilt(kind: str, place: Path, tmp_path: Path) -> TlsConfig:
    loose = tmp_path / "loose.key"
    loose.write_bytes((place / "main.key").read_bytes())
    loose.chmod(0o644)
    garbage = tmp_path / "garbage"
    garbage.write_text("not PEM")
    garbage.chmod(0o600)
    return {
        "missing": config(place, "main", certificate=str(tmp_path / "no.pem")),
        "other key": config(place, "main", key=str(place / "f1.key")),
        "loose": config(place, "main", key=str(loose)),
        "garbage": config(place, "main", authority=str(garbage)),
        "garbage key": config(place, "main", key=str(garbage)),
        "garbage list": config(place, "main", revoked=str(garbage)),
        "role": config(place, "f1"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", r"tls\.certificate: .*no\.pem: No such file.*lnnode certs"),
        ("other key", r"tls\.key: .*f1\.key: does not fit tls\.certificate"),
        ("loose", r"tls\.key: .*loose\.key: others may read it; chmod 600"),
        ("garbage", r"tls\.authority: .*garbage: holds no certificate"),
        ("garbage key", r"tls\.key: .*garbage: holds no private key"),
        ("garbage list", r"tls\.revoked: .*garbage: holds no revocation list"),
        ("role", r"tls\.certificate: .*f1\.pem: is that of a frontend, this is a backend"),
    ],
)
def test_a_mistake_is_named_with_field_file_and_remedy(place, tmp_path, kind, says) -> None:
    with pytest.raises(Refused, match=says):
        Tls(spoilt(kind, place, tmp_path), Role.BACKEND, time.time)


def test_a_certificate_out_of_its_time_is_named(place) -> None:
    for days, says in ((1_000, "expired on"), (-1, "begins on .* check the clock")):
        with pytest.raises(Refused, match=says):
            Tls(config(place, "main"), Role.BACKEND, lambda days=days: time.time() + days * 86_400)


def test_a_list_of_another_authority_is_refused(place, elsewhere) -> None:
    with pytest.raises(Refused, match="is not signed by the authority"):
        Tls(config(place, "main", revoked=str(elsewhere / "revoked.pem")), Role.BACKEND, time.time)


def test_a_file_spoilt_later_leaves_in_force_what_was_read(place, tmp_path) -> None:
    copy = tmp_path / "revoked.pem"
    copy.write_bytes((place / "revoked.pem").read_bytes())
    tls = Tls(config(place, "main", revoked=str(copy)), Role.BACKEND, time.time)
    copy.write_text("half a li")
    with capture_logs() as lines:
        tls.sweep()
        tls.sweep()
    assert [line["event"] for line in lines] == ["tls_files_unusable"]
    assert tls.member.name == "main"
    os.utime(copy)


CLEAR = "{bitcoind: {user: u}, link: '%s', tls: {clear_on_loopback: true}}"


@pytest.mark.parametrize("address", ["0.0.0.0:9736", "10.0.0.1:9736", "[::]:9736", "backend.example:9736"])
def test_no_setting_lets_a_link_be_in_clear_between_hosts(tmp_path, address) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(CLEAR % address)
    with pytest.raises(Refused, match="link: TLS is missing for"):
        load(BackendConfig, path, {})


@pytest.mark.parametrize("address", ["127.0.0.1:9736", "[::1]:9736", "localhost:9736"])
def test_on_loopback_it_takes_the_setting_that_says_so(tmp_path, address) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(CLEAR % address)
    assert load(BackendConfig, path, {})
    with pytest.raises(Refused, match=r"backend: TLS is missing.*clear_on_loopback"):
        load(FrontendConfig, None, {"LNNODE_BACKEND": f"'{address}'"})


def test_half_a_section_is_named() -> None:
    with pytest.raises(Refused, match=r"tls\.authority: is missing"):
        load(FrontendConfig, None, {"LNNODE_TLS__CERTIFICATE": "a", "LNNODE_TLS__KEY": "b"})


async def answered(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def test_the_api_speaks_tls_where_it_is_told_to(place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = (str(place / "main.pem"), str(place / "main.key"))
    server = HttpServer(answered, f"127.0.0.1:{port}", files)
    await server.start()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_context(place, certificate=False), server_hostname=""
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    await server.stop()


def test_an_api_with_tls_needs_a_certificate() -> None:
    with pytest.raises(Refused, match=r"api_tls: needs tls\.certificate"):
        load(BackendConfig, None, {"LNNODE_API_TLS": "true", "LNNODE_BITCOIND__USER": "u"})
