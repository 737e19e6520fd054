"""What an operator gets wrong, and what a tor can do to us: one clear sentence each, within its time."""

import asyncio
import shutil
import signal
import socket

import pytest
from onion import until, visit

from tor.control import Connection
from tor.errors import Unavailable
from tor.torrc import hashed_password

pytestmark = pytest.mark.tor

STARTED_S = 60


async def refused(lntor, **settings):
    """The log of a run that ends with status 2."""
    code, log = await lntor(**settings).start().ended(STARTED_S)
    assert code == 2, log
    return log


@pytest.fixture(scope="module")
def guarded(network):
    """A tor that takes only the password "sesame", on a port."""
    port = network.free_port()
    made = network.join(
        "guarded",
        "SocksPort 0",
        "CookieAuthentication 0",
        f"HashedControlPassword {hashed_password('sesame')}",
        f"ControlPort 127.0.0.1:{port}",
        wait=False,
    )
    made.wait_bootstrapped(100, 60)
    yield made, f"127.0.0.1:{port}"
    made.stop()


async def test_a_password_on_a_port(lntor, guarded, network):
    _, address = guarded
    control = {"address": address}
    assert "control password" in await refused(lntor, control={**control, "password": "wrong"})
    assert "control.password_file" in await refused(lntor, control=control)
    unreadable = {**control, "password_file": "/nonexistent/password"}
    assert "control.password_file: /nonexistent/password: No such file" in await refused(
        lntor, control=unreadable
    )
    secret = network.directory / "password"
    secret.write_text("sesame\n")
    made = lntor(control={**control, "password_file": str(secret)}).start()
    await made.serving()
    assert "authenticated by password" in (await made.call("check"))[1]


async def test_an_unreadable_cookie(lntor, network):
    missing = network.directory / "no cookie"
    log = await refused(lntor, control={"cookie_file": str(missing)})
    assert str(missing) in log
    assert "debian-tor" in log
    short = network.directory / "short"
    short.write_bytes(b"short")
    assert "not the cookie" in await refused(lntor, control={"cookie_file": str(short)})
    wrong = network.directory / "wrong"
    wrong.write_bytes(bytes(32))
    assert "not the cookie" in await refused(lntor, control={"cookie_file": str(wrong)})


async def test_no_tor_yet_is_waited_for(lntor, network):
    made = lntor()
    socket_file = made.directory / "late.sock"
    made.config["control"]["address"] = f"unix:{socket_file}"
    made.start()
    await until(lambda: made.socket.exists() and made.status()["problem"], STARTED_S, "a problem is shown")
    assert "is tor running" in made.status()["problem"]
    code, output = await made.call("address")
    assert code == 1
    assert "not known yet" in output
    socket_file.symlink_to(network.service.control_socket)
    address = await made.serving()
    await until(lambda: visit(network, address), STARTED_S, "reachable")


async def test_a_tor_that_is_too_old(lntor):
    made = lntor()
    path = made.directory / "old.sock"

    async def old_tor(reader, writer):
        answers = {
            b"PROTOCOLINFO": '250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.3.5.7"\r\n250 OK\r\n'
        }
        while line := await reader.readline():
            writer.write(answers.get(line.split()[0], "250 OK\r\n").encode())
        writer.close()

    server = await asyncio.start_unix_server(old_tor, str(path))
    made.config["control"]["address"] = f"unix:{path}"
    code, log = await made.start().ended(STARTED_S)
    assert code == 2
    assert "0.3.5.7 is too old" in log
    server.close()


async def test_a_tor_that_hangs_at_the_start_is_named_and_waited_for(lntor, network):
    network.service.signal(signal.SIGSTOP)
    try:
        made = lntor(control={"timeout_s": 1.0}).start()
        await until(
            lambda: made.socket.exists() and made.status()["problem"], STARTED_S, "a problem is shown"
        )
        assert "tor hangs, is starting" in made.status()["problem"]
    finally:
        network.service.signal(signal.SIGCONT)
    address = await made.serving()
    await until(lambda: visit(network, address), STARTED_S, "reachable")


async def test_a_target_that_does_not_parse(lntor, frontends):
    assert "targets[0].address" in await refused(lntor, targets=[{"address": "frontend.example:9735"}])
    made = lntor().start()
    await made.serving()
    good = made.config["targets"]
    made.config["targets"] = [*good, {"address": "10.0.0.7"}]
    made.write()
    made.signal(signal.SIGHUP)
    await until(lambda: "not_reloaded" in made.log.read_text(), STARTED_S, "refused")
    assert "targets[3].address" in made.log.read_text()
    assert len(made.status()["targets"]) == len(good)
    assert made.status()["serving"]


async def test_something_else_at_the_control_address(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"within 0\.5 s"):
            await asyncio.to_thread(Connection, f"unix:{tmp_path / 's'}", timeout_s=0.5)
        assert asyncio.get_running_loop().time() - began_s < 3


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda key: key[:50], "damaged"),
        (lambda _: b"-----BEGIN RSA PRIVATE KEY-----\n", "v2"),
        (lambda key: key[:32] + b"\xff" * 64, "no ed25519 scalar"),
    ],
)
async def test_a_damaged_key_file(lntor, damage, says):
    made = lntor()
    directory = made.directory / "onion"
    directory.mkdir(mode=0o700)
    key_file = directory / "hs_ed25519_secret_key"
    key_file.write_bytes(damage(b"== ed25519v1-secret: type0 ==\0\0\0" + bytes(64)))
    key_file.chmod(0o600)
    code, log = await made.start().ended(STARTED_S)
    assert code == 2
    assert says in log
    assert str(key_file) in log


async def test_a_key_that_others_can_read(lntor, network):
    made = lntor(service={"mode": "ephemeral", "key_file": str(network.directory / "open.key")})
    (network.directory / "open.key").write_bytes(bytes(96))
    (network.directory / "open.key").chmod(0o644)
    code, log = await made.start().ended(STARTED_S)
    assert code == 2
    assert "chmod 600" in log


async def test_two_lntor_of_one_key(lntor):
    first = lntor().start()
    await first.serving()
    second = lntor(service={"directory": first.config["service"]["directory"]})
    code, log = await second.start().ended(STARTED_S)
    assert code == 2
    assert "another lntor serves this key" in log


async def test_one_key_in_two_services_of_a_tor(lntor, network, frontends):
    first = lntor().start()
    address = await first.serving()
    second = lntor()
    shutil.copytree(first.directory / "onion", second.directory / "onion")
    second.start()
    await until(
        lambda: second.socket.exists() and second.status()["problem"], STARTED_S, "a problem is shown"
    )
    said = f"{address.partition(':')[0]} is already served by this tor"
    assert said in second.status()["problem"]
    code, output = await second.call("check")
    assert code == 1
    assert f"BAD     key: {said}" in output
    await first.stop()
    assert await second.serving(STARTED_S) == address  # tried again by itself


async def test_one_key_of_two_controllers(lntor, network):
    key_file = network.directory / "shared.key"
    first = lntor(service={"mode": "ephemeral", "key_file": str(key_file)}).start()
    address = await first.serving()
    shutil.copy(key_file, network.directory / "copied.key")
    (network.directory / "copied.key").chmod(0o600)
    second = lntor(service={"mode": "ephemeral", "key_file": str(network.directory / "copied.key")}).start()
    await until(
        lambda: second.socket.exists() and second.status()["problem"], STARTED_S, "a problem is shown"
    )
    assert "already served" in second.status()["problem"]
    await first.stop()
    assert await second.serving(STARTED_S) == address


async def test_check_names_what_is_wrong(lntor, network, frontends):
    await frontends[0].stop()
    health = f"http://{frontends[1].address}/readyz"
    targets = [{"address": frontends[0].address}, {"address": frontends[1].address, "health": health}]
    code, output = await lntor(targets=targets).call("check")
    assert code == 1
    assert f"target {frontends[0].address}" in output
    assert "start this frontend" in output
    assert f"HTTP; `curl {health}` says more" in output
    code, output = await lntor(control={"address": "unix:/nonexistent/control"}).call("check")
    assert code == 1
    assert "is tor running" in output


async def test_status_without_a_run(lntor):
    code, output = await lntor().call("status")
    assert code == 1
    assert "is `lntor run` running" in output
