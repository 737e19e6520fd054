"""The HTTP API over a real socket: every mistake has a sentence, and nothing works without the password."""

import aiohttp
import pytest

from node.backend.api import MAX_BODY, Api
from node.backend.commands import CALLS, READS, TELLS, Commands
from node.errors import Refused
from node.runtime.http_server import HttpServer


class FewCommands(Commands):
    """Answers without a node behind it."""

    def __init__(self) -> None:
        pass

    async def getinfo(self):
        return {"node_id": "02"}

    async def onion_address(self, *, address: str = "", announce: bool = True):
        return {"address": address, "announced": announce}

    async def keysend(
        self, *, node_id: str, amount_msat: int, max_fee_msat: int | None = None, timeout_s: float = 60.0
    ):
        return {"to": node_id, "amount_msat": amount_msat, "timeout_s": timeout_s}

    async def disconnect(self, *, node_id: str):
        raise Refused("this peer is not connected")

    async def graph(self):
        raise ZeroDivisionError("a secret that no user should read")


@pytest.fixture
async def api(tmp_path):
    """`await api("getinfo", {...})`: the status and the answer."""
    server = HttpServer(
        Api(FewCommands(), "pass word", "eyes only", "tor alone").application,
        f"unix:{tmp_path / 'api.sock'}",
    )
    await server.start()
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as http:

        async def call(name: str, body: object = None, password: str | None = "pass word"):
            token = aiohttp.encode_basic_auth("", password) if password is not None else None
            headers = {"authorization": token} if token else {}
            raw = body if isinstance(body, bytes) else None
            arguments = None if isinstance(body, bytes) else body
            async with http.post(
                f"http://node/{name}", json=arguments, data=raw, headers=headers
            ) as response:
                return response.status, await response.json()

        yield call
    await server.stop()


async def test_a_call_answers_in_json(api) -> None:
    assert await api("getinfo") == (200, {"node_id": "02"})
    assert await api("keysend", {"node_id": "ab", "amount_msat": 5, "timeout_s": 3}) == (
        200,
        {"to": "ab", "amount_msat": 5, "timeout_s": 3.0},
    )


@pytest.mark.parametrize("password", [None, "", "wrong", "pass word "])
async def test_nothing_works_without_the_password(api, password: str | None) -> None:
    assert await api("getinfo", password=password) == (401, {"error": "unauthorized"})


async def test_the_password_for_reading_opens_what_changes_nothing(api) -> None:
    assert (await api("getinfo", password="eyes only"))[0] == 200
    status, answer = await api("keysend", {"node_id": "ab", "amount_msat": 5}, password="eyes only")
    assert (status, answer["error"]) == (403, "keysend: this password only reads; ask with api_password")


@pytest.mark.parametrize(
    ("password", "opens"),
    [("pass word", set(CALLS)), ("eyes only", READS), ("tor alone", TELLS), ("no", set())],
)
async def test_each_password_opens_its_calls_and_no_other(api, password, opens) -> None:
    """An argument that no call knows: what is open says so, and nothing happens."""
    statuses = {name: (await api(name, {"no_such": 1}, password=password))[0] for name in CALLS}
    assert {name for name, status in statuses.items() if status == 400} == opens
    assert {status for name, status in statuses.items() if name not in opens} <= {403 if opens else 401}


async def test_the_password_of_a_tor_host_opens_what_it_needs_alone(api) -> None:
    told = {"address": "x.onion:9735"}
    assert await api("onion_address", told, password="tor alone") == (200, {**told, "announced": True})
    status, answer = await api("getinfo", password="tor alone")
    assert status == 403
    assert answer["error"] == "getinfo: this password opens only onion_address; ask with api_password"
    assert READS.isdisjoint(TELLS)


def test_only_these_calls_are_not_for_reading() -> None:
    """A new call is for the owner alone until somebody decides otherwise, here."""
    assert set(CALLS) - READS == {
        "backup", "drain", "undrain", "stop", "connect", "disconnect", "open", "close", "forceclose",
        "invoice", "settle", "cancel", "pay", "keysend", "onion_address",
    }  # fmt: skip
    assert set(CALLS) >= READS


async def test_an_unknown_call_names_those_that_there_are(api) -> None:
    status, answer = await api("getinof")

    assert status == 404
    assert all(name in answer["error"] for name in CALLS)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "missing a required argument: 'node_id'"),
        ({"node_id": "ab", "amount_msat": 1, "amout": 2}, "unexpected keyword argument 'amout'"),
        ({"node_id": "ab", "amount_msat": "1"}, "amount_msat: Expected `int`, got `str`"),
        ({"node_id": 5, "amount_msat": 1}, "node_id: Expected `str`, got `int`"),
        ([1], "the body is no JSON object"),
        (b"{", "the body is no JSON object"),
        (b'{"a":' + b"[" * 60_000, "the body is no JSON object"),
    ],
)
async def test_a_wrong_argument_is_named(api, body: object, says: str) -> None:
    status, answer = await api("keysend", body)

    assert status == 400
    assert says in answer["error"]


@pytest.mark.parametrize("ending", ["none", "hangs up"])
async def test_no_more_is_read_of_a_request_than_it_may_have(ending) -> None:
    """Whoever has the password of a tor host can send without end."""
    read, said = 0, []

    async def receive():
        nonlocal read
        if ending == "hangs up" and read:
            return {"type": "http.disconnect"}
        read += 1 << 16
        assert read <= MAX_BODY + (1 << 16)
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": True}

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/onion_address", "query_string": b"", "headers": []}
    await Api(FewCommands(), "").application(scope, receive, send)
    assert said[0]["status"] == 400
    assert ending == "hangs up" or b"the request is too large" in said[1]["body"]


async def test_a_refusal_is_a_sentence_and_a_fault_of_ours_tells_nothing(api) -> None:
    assert await api("disconnect", {"node_id": "ab"}) == (400, {"error": "this peer is not connected"})
    assert await api("graph") == (500, {"error": "internal error, see the log"})


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_refuses_an_argument_that_it_does_not_know(api, name: str) -> None:
    status, answer = await api(name, {"no_such_argument": 1})

    assert status == 400
    assert answer["error"].startswith(f"{name}: ")
