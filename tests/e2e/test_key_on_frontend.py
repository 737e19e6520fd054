"""Frontends that hold the node's key run handshakes themselves, in real processes; payments do not notice."""

import asyncio
import os

import pytest

from lnsim.cluster import HUB, Cluster, Purse
from lnsim.cluster_process import command
from lnsim.demo_network import Network

pytestmark = pytest.mark.e2e


class Keyed(Cluster):
    """The key goes from the backend's seed to the frontends' file, or into their environment."""

    async def _start_hub(self) -> None:
        await self.start_chain(dict.fromkeys((HUB, *(peer.name for peer in self.peers)), Purse()))
        await self.start_backend({"handshakes": "frontend"})
        path = self.directory / "node.key"
        argv = [*command("lnnode"), "node-key", str(path), str(self.directory / "backend.yaml")]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        assert self.node_id in said.decode()
        os.environ["NODE_PRIV_KEY"] = path.read_text()
        await self.start_frontend(
            "f1", {"handshakes": "frontend", "node_key": {"provider": "file", "path": str(path)}}
        )
        await self.start_frontend("f2", {"handshakes": "frontend", "node_key": {"provider": "env"}})


async def test_peers_come_in_and_pay(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_PRIV_KEY", "")  # and as it was afterwards
    cluster = Keyed(tmp_path, 2, ["payer", "payee"], lambda *_: None)
    try:
        await cluster.start()
        await Network(cluster, lambda *_: None).build()
        payer, payee = cluster.peers
        result = await payer.call("keysend", node_id=payee.node_id, amount_msat=50_000, timeout_s=30)
        assert result["status"] == "settled"
    finally:
        await cluster.stop()
    for name in ("f1", "f2"):
        assert "handshakes_stay_at_the_backend" not in cluster.supervisor.children[name].log_tail()
