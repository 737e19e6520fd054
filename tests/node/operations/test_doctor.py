"""`lnnode doctor`: what is wrong with a host is said with its remedy, and changes the exit status."""

import asyncio
import socket
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import app
from node.operations import doctor_backend, doctor_tor
from node.operations.doctor import patient
from node.operations.finding import Level
from node.runtime.addresses import join_address
from node.runtime.tor_config import TorConfig


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_backend, "CHAIN_TIMEOUT_S", 0.3)


def backend(path: Path, **more: str) -> Path:
    path.mkdir(exist_ok=True)
    file = path / "backend.yaml"
    lines = [f"data_dir: {path}", "bitcoind: {url: 'http://127.0.0.1:1', user: a, password: b}"]
    file.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in more.items())]))
    return file


def said(file: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", str(file), *more])
    return result.exit_code, result.output


def test_the_kind_of_a_configuration_is_told_by_its_fields(tmp_path: Path):
    frontend, standalone = tmp_path / "f.yaml", tmp_path / "s.yaml"
    frontend.write_text("reconnect_s: 1")
    standalone.write_text("backend: {bitcoind: {user: a}}")
    kinds = [patient(path, None).kind for path in (backend(tmp_path), frontend, standalone)]
    assert kinds == ["backend", "frontend", "standalone"]


def test_a_backend_that_lacks_its_chain_and_shows_its_seed(tmp_path: Path):
    (tmp_path / "seed").write_text("00" * 32)
    (tmp_path / "seed").chmod(0o644)
    status, text = said(backend(tmp_path))
    assert status == 1
    assert "may be read by others (644)" in text
    assert f"chmod 600 {tmp_path / 'seed'}" in text
    assert "BAD   chain:" in text


def test_a_database_that_is_none(tmp_path: Path):
    (tmp_path / "lnnode.sqlite").write_bytes(b"no database at all" * 100)
    assert "restore your backup" in said(backend(tmp_path))[1]


def test_a_sound_database_shows_its_term(tmp_path: Path):
    db = sqlite3.connect(tmp_path / "lnnode.sqlite")
    db.execute("CREATE TABLE meta (key TEXT, value BLOB)")
    db.execute("INSERT INTO meta VALUES ('epoch', ?)", ((7).to_bytes(8, "big"),))
    db.commit()
    db.close()
    assert "is sound, term 7" in said(backend(tmp_path))[1]


def test_a_frontend_that_reaches_no_backend(tmp_path: Path):
    file = tmp_path / "frontend.yaml"
    file.write_text(f"listen: 127.0.0.1:0\nreconnect_s: 1\nbackend: 'unix:{tmp_path}/link.sock'")
    status, text = said(file)
    assert status == 1
    assert "no backend can be reached" in text


def test_a_port_that_somebody_has(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = said(backend(tmp_path, admin=f"127.0.0.1:{port}"))
    assert "Address already in use" in text
    assert "ss -ltnp" in text
    assert status == 1


@pytest.mark.parametrize("kind", ["backend", "frontend"])
def test_a_configuration_that_is_wrong_is_refused_as_ever(tmp_path: Path, kind: str):
    file = tmp_path / "wrong.yaml"
    file.write_text("nonsense: 1")
    assert "unknown field" in str(CliRunner().invoke(app, ["doctor", str(file), "--kind", kind]).exception)


def test_certificates_are_looked_at_with_the_eyes_of_the_process(tmp_path: Path):
    run, directory = CliRunner(), str(tmp_path / "certs")
    assert run.invoke(app, ["certs", "init", "--dir", directory]).exit_code == 0
    assert run.invoke(app, ["certs", "issue", "f1", "--dir", directory]).exit_code == 0
    file = tmp_path / "frontend.yaml"
    names = {"certificate": "f1.pem", "key": "f1.key", "authority": "authority.pem", "revoked": "revoked.pem"}
    tls = "".join(f"  {field}: {directory}/{name}\n" for field, name in names.items())
    file.write_text(f"listen: 127.0.0.1:0\nreconnect_s: 1\nbackend: 127.0.0.1:1\ntls:\n{tls}")
    assert "f1.pem is good for" in said(file)[1]
    assert 'the backend takes this frontend as "f1"' in said(file)[1]

    with file.open("a") as text:
        text.write("id: b-1\n")
    assert 'f1.pem is that of "f1", not of "b-1"' in said(file)[1]

    (tmp_path / "certs" / "f1.key").chmod(0o644)
    assert "BAD   certificates:" in said(file)[1]


ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735"


@pytest.mark.parametrize(
    ("answer", "level", "says"),
    [
        (b"\x05\x02", "ok", "a SOCKS proxy answers at"),
        (b"HTTP/1.1 400", "BAD", "speaks no SOCKS5"),
        (b"", "BAD", "speaks no SOCKS5"),
        (None, "BAD", "Connect call failed"),
    ],
)
async def test_a_proxy_that_is_none(answer: bytes | None, level: str, says: str):
    async def serve(reader, writer):
        await reader.readexactly(4)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = join_address(*server.sockets[0].getsockname())
    if answer is None:
        server.close()
    (found,) = [each async for each in doctor_tor.socks("socks", address, elsewhere=False)]
    (lenient,) = [each async for each in doctor_tor.socks("tor.socks", address, elsewhere=True)]
    server.close()
    assert says in found.text
    assert found.level is (Level.GOOD if level == "ok" else Level.BAD)
    assert lenient.level is (Level.GOOD if level == "ok" else Level.WARNING)


def test_the_file_with_the_onion_address(tmp_path: Path):
    file = tmp_path / "address"
    (missing,) = doctor_tor.address_file(TorConfig(address_file=str(file)))
    assert (missing.level, "is lntor running" in missing.mend) == (Level.WARNING, True)
    file.write_text(f"{ONION}\n")
    (there,) = doctor_tor.address_file(TorConfig(address_file=str(file)))
    assert there.text == f"tor.address_file: {ONION}, announced"
    assert f"{ONION}, announced" in said(backend(tmp_path, tor=f"{{address_file: {file}}}"))[1]
    assert not list(doctor_tor.address_file(TorConfig()))
