"""A clustered node behind an onion service, and peers that have no other way to it.

All of it lives in the network's namespace, so the tests of this cluster are inside from their first line to their last.
"""

import asyncio
import json
import os
from collections import Counter
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
from onion import DIAL_S, ROOT, Refusal, dial

from lnsim.api_client import CallFailed
from lnsim.cluster import DEPTH, FLUSH_INTERVAL_S, HUB, Cluster, Purse, all_of, wait_until
from lnsim.cluster_peer import peer_config
from lnsim.demo_check import books, verdict
from node.backend.identity import SEED_FILE
from node.crypto.derivation import node_secret

FRONTENDS = 3
PAYERS = 6  # payments under way at once
AMOUNT_MSAT = 50_000
CAPACITY_SAT = 1_000_000
# A stream through three hops on each side, on two shared cores: tens of times what loopback takes.
PATIENCE_S = 60
PAYMENT_S = 30
PYLN = (ROOT / ".venv-peers/bin/python", ROOT / "tests/interop/pyln_bolt8.py")


class Forwarder:
    """A loopback port for peers that know no SOCKS: each connection goes on to the onion address by the client tor."""

    def __init__(self, network, onion, circuits):
        """`circuits`: how many clients of Tor the connections seem to come from, in turn."""
        self._network, self._onion, self._circuits = network, onion, circuits
        self._numbers = count()
        self._server = None
        self._tasks = set()
        self._writers = []
        self.address = ""

    async def start(self):
        self._server = await asyncio.start_server(self._came, "127.0.0.1", 0, backlog=512)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self):
        """Whatever is still open is cut."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        async with asyncio.timeout(2 * DIAL_S):
            await asyncio.gather(*self._tasks)

    def _came(self, reader, writer):
        self._writers.append(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        circuit = f"{id(self)} {next(self._numbers) % self._circuits}"
        try:
            far_reader, far_writer = await dial(self._network, self._onion, circuit)
        except (Refusal, OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader, writer):
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class OnionCluster(Cluster):
    """Every frontend on a port of its own; `entrance`, once it is known, is the only address that peers are given."""

    def __init__(self, network, directory):
        self.said = []
        names = ["payer", "payee", "pyln"]
        super().__init__(directory, FRONTENDS, names, lambda *what: self.said.append(what))
        ports = [network.free_port() for _ in range(2 * FRONTENDS)]
        self.listening = dict(zip(self.frontends, ports[:FRONTENDS], strict=True))
        self.admin = dict(zip(self.frontends, ports[FRONTENDS:], strict=True))
        self.running = []  # of the peers

    async def start(self):
        """Chain, backend and frontends; the peers follow, with `begin` and `open_channels`."""
        await self.start_chain(dict.fromkeys((HUB, *(peer.name for peer in self.peers)), Purse()))
        await self.start_backend({"announce_addresses": []})
        await all_of(*(self.start_frontend(name, {}) for name in self.frontends))

    async def start_frontend(self, name, more):
        own = {"listen": f"127.0.0.1:{self.listening[name]}", "admin": f"127.0.0.1:{self.admin[name]}"}
        await super().start_frontend(name, {**own, **more})

    def targets(self):
        """The frontends, as lntor's configuration names them."""
        return [
            {
                "address": f"127.0.0.1:{self.listening[name]}",
                "health": f"http://127.0.0.1:{self.admin[name]}/readyz",
            }
            for name in self.frontends
        ]

    async def begin(self, peer):
        """Its process and its node, without a connection."""
        await peer.spawn(self.supervisor)
        await peer.begin(peer_config(self.directory, peer.name, self.endpoint, FLUSH_INTERVAL_S))
        self.running.append(peer)

    async def open_channels(self, peers, entrance):
        """All of them come in through `entrance`, and each opens a channel, half of it on either side."""
        await all_of(*(self._open_channel(peer, entrance) for peer in peers))
        await self.mine(DEPTH)

        async def usable():
            own = await self.api.call("channels")
            theirs = await asyncio.gather(*(peer.call("channels") for peer in self.running))
            return len(own) == len(self.running) and all(c["usable"] for each in (own, *theirs) for c in each)

        await wait_until(usable, PATIENCE_S, "all channels usable")

        async def known():
            graphs = await asyncio.gather(*(peer.call("graph") for peer in peers))
            updated = [[c for c in graph["channels"] if all(c["updates"])] for graph in graphs]
            return all(len(channels) == len(self.running) for channels in updated)

        await wait_until(known, PATIENCE_S, "all channels in these peers' graphs")

    async def _open_channel(self, peer, entrance):
        async def connected():
            with suppress(CallFailed):
                await peer.call("connect", node_id=self.node_id, address=entrance)
                return True

        await wait_until(connected, PATIENCE_S, f"{peer.name} connected")
        terms = {"funding_sat": CAPACITY_SAT, "push_msat": CAPACITY_SAT * 500, "announce": True}
        await peer.call("open", node_id=self.node_id, **terms)

    def secret(self, name):
        """The node key of a node of this cluster, in hex."""
        return node_secret(bytes.fromhex((self.directory / name / SEED_FILE).read_text())).hex()


class Traffic:
    """Payments between two peers through the hub, back to back; none may end in any other way than these two."""

    def __init__(self, payer, payee):
        self.payer, self.payee = payer, payee
        self.counts = Counter(settled=0, failed=0)
        self.moved_msat = Counter()
        self.going = True

    async def pay(self):
        while self.going:
            result = await self.payer.call(
                "keysend", node_id=self.payee.node_id, amount_msat=AMOUNT_MSAT, timeout_s=PAYMENT_S
            )
            self.counts[result["status"]] += 1
            if result["status"] != "settled":
                await wait_until(self._usable, PATIENCE_S, "the payer's channel is usable")
                continue
            fee_msat = result["fee_msat"]
            moved_msat = {
                self.payer.name: -AMOUNT_MSAT - fee_msat,
                self.payee.name: AMOUNT_MSAT,
                HUB: fee_msat,
            }
            self.moved_msat.update(moved_msat)

    async def _usable(self):
        return all(channel["usable"] for channel in await self.payer.call("channels"))

    async def settle(self, more):
        """Until that many payments more have settled."""
        wanted = self.counts["settled"] + more

        async def enough():
            return self.counts["settled"] >= wanted

        await wait_until(enough, PATIENCE_S, f"{more} payments more than {wanted - more}")


@asynccontextmanager
async def paying(cluster, payer, payee):
    """Payments meanwhile; at the end every millisatoshi is where the payments say, and every channel is open."""
    nodes = {HUB: cluster.api} | {peer.name: peer for peer in cluster.running}
    before = await books(nodes)
    assert not before.complaints
    traffic = Traffic(payer, payee)
    running = [asyncio.create_task(traffic.pay()) for _ in range(PAYERS)]
    try:
        await traffic.settle(PAYERS)
        yield traffic
    finally:
        traffic.going = False
        await asyncio.gather(*running)
    after = await books(nodes, before)
    assert not after.complaints
    found = verdict(before, after, traffic.moved_msat)
    assert found.msat_conserved, found.complaints
    assert (found.htlcs_lost, found.channels_closed) == (0, 0), found.complaints
    assert traffic.counts.keys() == {"settled", "failed"}


def require_pyln():
    """Go on only where pyln-proto is installed: a user's run skips with the reason, CI fails."""
    if not PYLN[0].exists():
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("real peer pyln: it is not installed; run `make peers`")


async def pyln(node_id, address, pings):
    """What pyln-proto's BOLT 8 saw of the node at `address`: handshake, init, so many pings; or {"error": ...}."""
    host, port = address.split(":")
    process = await asyncio.create_subprocess_exec(
        *PYLN, "connect", node_id, host, port, str(pings), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(3 * DIAL_S):
        return json.loads((await process.communicate())[0])


@asynccontextmanager
async def pyln_transport(cluster, name, entrance):
    """pyln-proto between the peer of that name and the node: what they say to each other goes by its BOLT 8 alone.

    It has the secrets of both, so that each end takes it for the other; the library itself knows no channels. Yields its
    address, and a dictionary that at the end has how many messages of each type went {"to_node", "from_node"}.
    """
    host, port = entrance.split(":")
    secrets = {"node_secret": cluster.secret(HUB), "own_secret": cluster.secret(name)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*PYLN, "relay", stdin=pipe, stdout=pipe)
    counts = {}
    try:
        process.stdin.write(json.dumps({"host": host, "port": int(port), **secrets}).encode() + b"\n")
        async with asyncio.timeout(DIAL_S):
            ready = json.loads(await process.stdout.readline())
        yield f"127.0.0.1:{ready['port']}", counts
        async with asyncio.timeout(DIAL_S):
            said, _ = await process.communicate(b"")
        for way, each in json.loads(said).items():
            counts[way] = {int(kind): number for kind, number in each.items()}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
