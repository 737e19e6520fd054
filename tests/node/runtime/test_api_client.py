"""What an operator's command hears from an API: over TLS only from a backend, and each mistake in a sentence."""

import asyncio
import re

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from node import certs
from node.errors import Refused
from node.runtime.api_client import Api, NobodyAnswers, api_of, call
from node.runtime.config import BackendConfig, TlsConfig, load
from node.runtime.http_server import HttpServer


async def say(request) -> Response:
    asked = msgspec.json.decode(await request.body())
    if request.headers.get("authorization") is None:
        return Response(b'{"error": "unauthorized"}', 401)
    return Response(msgspec.json.encode(asked))


APPLICATION = Starlette(routes=[Route("/{name}", say, methods=["POST"])])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("certs") / "ours"
    runner = CliRunner()
    for words in (["init"], ["issue", "main", "--role", "backend"], ["issue", "f1"]):
        assert runner.invoke(certs.app, [*words, "--dir", str(place)]).exit_code == 0
    assert runner.invoke(certs.app, ["init", "--dir", str(place.parent / "other")]).exit_code == 0
    return place


@pytest.fixture
async def serving(place):
    """`await serving("main")`: the address of a server that shows this certificate, or none."""
    started = []

    async def start(name: str | None) -> str:
        files = (str(place / f"{name}.pem"), str(place / f"{name}.key")) if name else None
        started.append(HttpServer(APPLICATION, "127.0.0.1:0", files))
        await started[-1].start()
        return started[-1].address

    yield start
    for each in started:
        await each.stop()


async def ask(api: Api):
    return await asyncio.to_thread(call, api, "getinfo", height=5)


async def test_a_backend_answers_over_tls(serving, place) -> None:
    api = Api(await serving("main"), "pass word", str(place / "authority.pem"))
    assert await ask(api) == {"height": 5}
    with pytest.raises(Refused, match=r"^unauthorized$"):
        await ask(msgspec.structs.replace(api, password=""))


@pytest.mark.parametrize(
    ("certificate", "authority", "says"),
    [
        ("f1", "authority.pem", "unsuitable certificate purpose"),
        ("main", "../other/authority.pem", "certificate verify failed"),
        (
            "main",
            "nowhere.pem",
            re.escape("nowhere.pem: ") + ".*; name the file authority.pem of `lnnode certs`",
        ),
        ("main", "", "does it speak TLS? name --authority FILE".replace("?", r"\?")),
        (None, "authority.pem", "wrong version number|record layer failure"),
    ],
)
async def test_who_is_no_backend_gets_no_password(serving, place, certificate, authority, says) -> None:
    api = Api(await serving(certificate), "pass word", str(place / authority) if authority else "")
    with pytest.raises(Refused, match=says):
        await ask(api)


def test_nobody_there_is_told_from_a_refusal() -> None:
    with pytest.raises(NobodyAnswers, match="name its API with --api or --config"):
        call(Api("unix:/nowhere/api.sock"), "getinfo")


def test_a_configuration_says_where_its_api_is() -> None:
    tls = TlsConfig(certificate="a", key="b", authority="c")
    spoken = BackendConfig(api="10.0.0.1:9741", api_password="x", api_tls=True, tls=tls)
    assert api_of(spoken) == Api("10.0.0.1:9741", "x", "c")
    assert api_of(BackendConfig(data_dir="/d", tls=tls)) == Api("unix:/d/api.sock", "", "")


@pytest.mark.parametrize(
    ("field", "settings", "says"),
    [
        ("read", {"PASSWORD": "x", "READ_PASSWORD": "x"}, "is api_password; choose another"),
        ("onion", {"PASSWORD": "x", "ONION_PASSWORD": "x"}, "is api_password; choose another"),
        (
            "onion",
            {"PASSWORD": "x", "READ_PASSWORD": "y", "ONION_PASSWORD": "y"},
            "is api_read_password; cho",
        ),
        ("read", {"READ_PASSWORD": "x"}, "without api_password everybody may do everything"),
        ("onion", {"ONION_PASSWORD": "x"}, "without api_password everybody may do everything"),
    ],
)
def test_a_password_for_a_part_needs_one_for_the_rest(field, settings, says) -> None:
    environment = {f"LNNODE_API_{name}": value for name, value in settings.items()}
    with pytest.raises(Refused, match=f"api_{field}_password: {says}"):
        load(BackendConfig, None, {"LNNODE_BITCOIND__USER": "u", **environment})
