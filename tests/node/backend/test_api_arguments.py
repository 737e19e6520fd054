"""Whatever a user types, the answer is the call's or a refusal that names what was wrong: never an internal error."""

import asyncio

import msgspec
import pytest
from backend_bench import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.backend.api import Api
from node.backend.commands import CALLS

NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
NUMBERS = st.sampled_from([0, 1, -1, 546, 20_000, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**70, -(2**63)])
TEXTS = st.sampled_from(["", "zz", NODE_ID, "00" * 32, "ff" * 33, "127.0.0.1:1", "unix:", ":1", "x" * 700, "ä", "\0", "anchors", "lnbcrt1"])  # fmt: skip
VALUES = {"int": NUMBERS, "float": st.one_of(NUMBERS, st.sampled_from([0.0, -1.5, 1e308])), "str": TEXTS, "bool": st.booleans()}  # fmt: skip
LEFT_OUT = {"stop"}


def arguments(api: Api, name: str):
    required, optional = {}, {}
    for key, parameter in api._signatures[name].parameters.items():
        kinds = [kind for kind in VALUES if kind in str(parameter.annotation)]
        values = st.one_of(*(VALUES[kind] for kind in kinds), st.none() if "None" in str(parameter.annotation) else st.nothing())  # fmt: skip
        (required if parameter.default is parameter.empty else optional)[key] = values
    return st.fixed_dictionaries(required, optional=optional)


@pytest.fixture(scope="module")
def api(chain, tmp_path_factory):
    with asyncio.Runner() as runner:
        bench = runner.run(Bench(tmp_path_factory.mktemp("node"), chain).start())

        async def prepare():
            alice = bench.peer("alice")
            await bench.connect(alice, bench.frontend())
            await bench.open_from(alice)
            return alice

        alice = runner.run(prepare())
        yield runner.run, bench, Api(bench.backend.commands, ""), alice
        runner.run(bench.drop())


@pytest.mark.parametrize("name", [name for name in CALLS if name not in LEFT_OUT])
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_value_gets_an_answer_or_a_named_refusal(api, name, data):
    run, bench, api_, alice = api
    given_ = data.draw(arguments(api_, name))
    if "node_id" in given_ and data.draw(st.booleans()):
        given_["node_id"] = alice.node_id.hex()
    if "channel_id" in given_ and name == "channels":
        given_["channel_id"] = bench.record(alice).channel.channel_id.hex()
    sent = []

    async def ask():
        body = msgspec.json.encode(given_)
        scope = {"type": "http", "method": "POST", "path": f"/{name}", "headers": [], "query_string": b""}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        asking = asyncio.ensure_future(api_.application(scope, receive, send))
        await bench.settle()
        if not asking.done():  # it waits for a peer or for its own deadline
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert not bench.runtime.failures, bench.runtime.failures
        return asking

    asking = run(ask())
    if not asking.cancelled():
        asking.result()
        answer = msgspec.json.decode(sent[1]["body"])
        assert sent[0]["status"] in (200, 400), (given_, answer)
        if sent[0]["status"] == 400:
            assert answer["error"]
