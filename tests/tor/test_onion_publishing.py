"""lntor and the backend on hosts of their own: the address goes over the API, with TLS and a password for that alone."""

import asyncio
import re
import signal
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from onion import SOON_S, Lntor, until
from typer.testing import CliRunner

from lnsim.cluster import HUB, Hub, Purse
from node import certs
from node.errors import Refused
from node.runtime.api_client import Api, call

pytestmark = [pytest.mark.tor, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 60


@pytest.fixture(scope="module", autouse=True)
def within(network):
    """Everything here is in the network's namespace, the event loop and all that it starts."""
    with network.inside():
        yield


class Site:
    """A chain and a backend whose API is on a port, and what an operator carries from there to the host of tor."""

    def __init__(self, network, directory):
        self.certs = directory / "certs"
        runner = CliRunner()
        for words in (["init"], ["issue", "main", "--role", "backend"]):
            assert runner.invoke(certs.app, [*words, "--dir", str(self.certs)]).exit_code == 0
        self.said = []
        self.hub = Hub(directory, 0, lambda *what: self.said.append(what))
        self.api = Api(f"127.0.0.1:{network.free_port()}", "all of it", str(self.certs / "authority.pem"))

    async def start(self):
        await self.hub.start_chain({HUB: Purse()})
        files = {"certificate": "main.pem", "key": "main.key", "authority": "authority.pem"}
        api = {"api": self.api.address, "api_password": self.api.password, "api_tls": True}
        passwords = {"api_read_password": "eyes only", "api_onion_password": "onion alone"}
        tls = {field: str(self.certs / file) for field, file in files.items()}
        await self.hub.start_backend({"announce_addresses": [], "tls": tls, **api, **passwords})

    async def addresses(self):
        """Where the node says that it is; None while the backend is away."""
        try:
            return (await asyncio.to_thread(call, self.api, "getinfo"))["addresses"]
        except Refused:
            return None

    async def announces(self, *addresses):
        async def does():
            return await self.addresses() == [*addresses]

        _, took_s = await until(does, SOON_S, f"{addresses} announced")
        return took_s


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(network, within, tmp_path_factory):
    made = Site(network, tmp_path_factory.mktemp("site"))
    try:
        await made.start()
        yield made
    finally:
        await made.hub.stop()
    assert not made.hub.supervisor.given_up, made.said


@pytest_asyncio.fixture(loop_scope="module")
async def lntor(network, site):
    directory = Path(tempfile.mkdtemp(dir=network.directory))
    targets = [{"address": "127.0.0.1:9"}]
    made = Lntor(network, directory, targets, service={"address_file": "", "keep": True})
    made.config["backend"] = {
        "api": site.api.address, "authority": site.api.authority, "password_file": str(directory / "password")
    }  # fmt: skip
    password(made, "onion alone")
    yield made
    await made.stop()


def password(lntor, secret):
    path = lntor.directory / "password"
    path.write_text(f"{secret}\n")
    path.chmod(0o640)


async def restarted(lntor, **service):
    lntor.signal(signal.SIGTERM)
    assert (await lntor.ended())[0] == 0
    lntor.config["service"].update(service)
    lntor.start()


async def shown(lntor, condition, what):
    """`condition` of the status' part about the backend."""

    async def does():
        lntor.check()
        return lntor.socket.exists() and condition(lntor.status()["backend"])

    await until(does, PATIENCE_S, what)


async def test_the_address_is_announced_and_taken_out_over_the_api(site, lntor):
    lntor.start()
    await shown(lntor, lambda backend: backend["announced"], "taken by the backend")
    address = lntor.status()["address"]
    await site.announces(address)
    assert "announced   yes; taken " in (await lntor.call("status"))[1]
    assert f"ok      backend {site.api.address}: takes the address" in (await lntor.call("check"))[1]

    site.hub.supervisor.children["backend"].kill()

    async def back():
        return await site.addresses() is not None

    _, took_s = await until(back, PATIENCE_S, "the backend is back")
    print(f"backend killed: back after {took_s:.1f} s")
    assert await site.addresses() == [address]

    await restarted(lntor, announce=False)
    took_s = await site.announces()
    print(f"announce: false, out after {took_s:.1f} s of lntor's start")
    await restarted(lntor, announce=True, keep=False)
    await site.announces(address)
    lntor.signal(signal.SIGTERM)
    await lntor.ended()
    assert await site.addresses() == []  # the service is gone, and said so


async def test_a_wrong_password_is_said_wherever_an_operator_looks_and_mended_without_a_restart(site, lntor):
    password(lntor, "eyes only, guessed")
    lntor.start()
    await shown(lntor, lambda backend: backend["problem"], "not taken")
    wrong = f"{site.api.address}: wrong password; write the backend's api_onion_password into "
    assert wrong in (await lntor.call("status"))[1]
    code, found = await lntor.call("check")
    assert code == 1
    assert re.search(rf"^BAD +backend {site.api.address}: wrong password; write", found, re.MULTILINE)
    password(lntor, "onion alone")
    await shown(lntor, lambda backend: backend["announced"], "taken, with the right one")
    assert lntor.status()["address"] in await site.addresses()
    assert lntor.log.read_text().count("wrong password") == 1
