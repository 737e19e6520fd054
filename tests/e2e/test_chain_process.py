"""A backend as a process, and a bitcoind that comes later, or is the wrong one."""

import asyncio
import json
import signal
import time

import aiohttp
import msgspec
import pytest
from ports import free_port

from lnsim.chain.server import ChainServer, ServerOptions
from lnsim.cluster import wait_until
from lnsim.cluster_process import command

pytestmark = pytest.mark.e2e

PATIENCE_S = 30.0  # only a failing test waits for so long


def written(directory, **changes):
    config = {
        "data_dir": str(directory / "data"),
        "admin": f"127.0.0.1:{free_port()}",
        "bitcoind": {
            "url": f"http://127.0.0.1:{free_port()}",
            "cookie_file": str(directory / "chain" / ".cookie"),
        },
        **changes,
    }
    path = directory / "backend.yaml"
    path.write_bytes(msgspec.yaml.encode(config))
    return path, config


async def started(path):
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command("lnnode"), "backend", str(path), stdout=pipe, stderr=pipe
    )


def chain(directory, config) -> ChainServer:
    (directory / "chain").mkdir(exist_ok=True)
    port = int(config["bitcoind"]["url"].rpartition(":")[2])
    return ChainServer(time.time, ServerOptions(datadir=directory / "chain", rpc_port=port))


async def readiness(config) -> tuple[int, str]:
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{config['admin']}/readyz") as answer,
        ):
            return answer.status, await answer.text()
    except aiohttp.ClientError:
        return 0, ""


async def test_it_waits_for_its_bitcoind_and_goes_on_by_itself(tmp_path):
    path, config = written(tmp_path)
    process = await started(path)

    async def waits() -> bool:
        status, text = await readiness(config)
        return status == 503 and "waiting for bitcoind at" in text and "bitcoind.cookie_file" in text

    await wait_until(waits, PATIENCE_S, "it says what it waits for")
    async with chain(tmp_path, config):
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
        assert ready["ready"] == "backend"
        assert (await readiness(config))[0] == 200
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0
    assert b"bitcoind_is_there" in said


async def test_it_can_be_stopped_while_it_waits(tmp_path):
    path, config = written(tmp_path)
    process = await started(path)

    async def waits() -> bool:
        return "waiting for bitcoind" in (await readiness(config))[1]

    await wait_until(waits, PATIENCE_S, "it says what it waits for")
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "signet"}, "network: is signet, and bitcoind at"),
        ({"bitcoind": {"wallet": "hot"}}, 'bitcoind.wallet: "hot": '),
        ({"bitcoind": {"user": "me", "password": "x", "cookie_file": ""}}, "bitcoind: bitcoind refuses our"),
    ],
)
async def test_what_only_an_operator_can_mend_names_the_file_too(tmp_path, changes, words):
    path, config = written(tmp_path)
    config |= changes | {"bitcoind": {**config["bitcoind"], **changes.get("bitcoind", {})}}
    path.write_bytes(msgspec.yaml.encode(config))
    async with chain(tmp_path, config):
        process = await started(path)
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 2
    last = said.decode().strip().splitlines()[-1]
    assert last.startswith(f"lnnode: {path}: {words}"), last
