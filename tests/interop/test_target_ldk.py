"""`lnsim run FILE --target`: LDK under light peers, and under payments through it and to it."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

A_POINT = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"  # of nobody

LIGHT = """
# A node takes what light peers do to it.
duration_s: 6
topology:
  peers:
    idle: {count: 30, ping_interval_s: 1}
    fresh: {count: 10}
workloads:
  - {run: connection_churn, group: fresh, rate_per_s: 5, duration_s: 5}
  - {run: sync_storm, group: idle, start_s: 1}
  - {run: reconnect_storm, group: idle, start_s: 3}
  - {run: rude, rate_per_s: 4, duration_s: 4}
expect:
  - swarm.idle.connected.last == 30
  - handshake.count >= 10
  - reconnect.count >= 30
"""

PAYMENTS = """
# Two groups pay each other through a node, and pay it.
duration_s: 5
topology:
  peers:
    shops: {count: 2, channels: {announce: false}}
    people: {count: 2, channels: {announce: false}}
  chain: {block_interval_s: 2}
workloads:
  - {run: payments, payers: [people], payees: [shops], rate_per_s: 4, keysend: 0, amount_msat: [10_000, 1_000_000]}
  - {run: payments, payers: [shops, people], payees: [hub], rate_per_s: 3, keysend: 1, amount_msat: [10_000, 1_000_000]}
expect:
  - payments.success_ratio >= 0.9
  - payments.settled >= 15
"""


async def lnsim_run(path: Path, text: str, *options: str) -> tuple[int, dict | None, str]:
    """Exit status, result and what it complains of."""
    await asyncio.to_thread(path.write_text, text)
    argv = [Path(sys.executable).with_name("lnsim"), "run", path, "--json", "--seed", "5", *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, env=os.environ)
    out, err = await process.communicate()
    lines = out.decode().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else None, err.decode()


def rpc_url(chain) -> str:
    return chain.rpc.url.replace("//", f"//{chain.rpc.user}:{chain.rpc.password}@")


async def test_ldk_under_light_peers_and_without_a_chain(ldk, tmp_path):
    node = await ldk()
    status, result, err = await lnsim_run(tmp_path / "light.yaml", LIGHT, "--target", node.address)
    assert (status, result and result["complaints"]) == (0, []), (err, result)
    assert result["mode"] == "target"
    assert "swarm.idle.connected.last" in result["metrics"]
    assert not [name for name in result["metrics"] if name.startswith(("f1.", "frontend.", "backend."))]


async def test_payments_through_ldk_and_to_it(chain, ldk, tmp_path):
    node = await ldk()
    options = ("--target", node.address, "--chain", rpc_url(chain))
    status, result, err = await lnsim_run(tmp_path / "pay.yaml", PAYMENTS, *options)
    assert (status, result and result["complaints"]) == (0, []), (err, result)
    assert f"{chain.rpc.user}:...@" in result["command"]  # reports are shown to others
    await node.event("payment_claimed", timeout_s=5)
    assert await chain.rpc.call("listwallets") == [""]  # the peers' wallets are unloaded


async def test_who_is_not_there_is_one_line(ldk, tmp_path):
    node = await ldk()
    for target, words in (
        (f"{node.node_id}@127.0.0.1:1", "nobody listens there"),
        (f"{A_POINT}@127.0.0.1:{node.port}", f"is not {A_POINT}"),
        (f"{node.node_id[2:]}@127.0.0.1:{node.port}", "write NODE_ID@HOST:PORT"),
    ):
        status, result, err = await lnsim_run(tmp_path / "light.yaml", LIGHT, "--target", target)
        assert (status, result, len(err.splitlines())) == (2, None, 1), err
        assert words in err
