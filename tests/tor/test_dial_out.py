"""A node that speaks through Tor alone, on the private network: who it dials, by which circuit, and that nothing leaves."""

import asyncio
import socket
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from onion import Lntor, dial, until
from watch import Watch, require_watch

from lnsim.api_client import CallFailed
from lnsim.cluster import DEPTH, FLUSH_INTERVAL_S, HUB, Cluster, Purse, all_of
from lnsim.cluster_peer import peer_config
from lnsim.demo_network import sessions
from node.crypto.keys import public_key
from tor.control import CLOSED, Connection

pytestmark = [pytest.mark.tor, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 60
DIRECTORIES = 4  # all relays of the network are that; each is told for this period and for the next
PORTS = {
    "alice": 9735,
    "bob": 9736,
}  # of one onion address: only its name at the proxy tells one peer from the other
FAR_V4, FAR_V6, FAR_NAME = "198.51.100.7:9735", "[2001:db8::7]:9735", "node.example:9735"
STRANGER = public_key(b"\x22" * 32).hex()
NOWHERE = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion:9735"  # not of this network


class TorOnly(Cluster):
    """The hub dials through Tor alone, by frontend `f2`; its peers have the same proxy, and nothing else is forbidden them."""

    def __init__(self, network, directory, address_file):
        self.said = []
        super().__init__(directory, 2, list(PORTS), lambda *what: self.said.append(what))
        self.listening = {name: f"127.0.0.1:{network.free_port()}" for name in self.frontends}
        self.socks = f"127.0.0.1:{network.socks_port}"
        self.address_file = address_file

    async def start(self):
        await self.start_chain(dict.fromkeys((HUB, *PORTS), Purse()))
        tor = {"only": True, "socks": self.socks, "address_file": str(self.address_file)}
        await self.start_backend({"announce_addresses": [], "tor": tor})
        reaches = {"f1": ["ipv4", "ipv6"], "f2": ["onion", "ipv4", "ipv6", "dns"]}
        await all_of(
            *(
                self.start_frontend(name, {"listen": self.listening[name], "reaches": reaches[name]})
                for name in self.frontends
            ),
            *(self._start_peer(peer) for peer in self.peers),
        )

    async def _start_peer(self, peer):
        await peer.spawn(self.supervisor)
        config = peer_config(self.directory, peer.name, self.endpoint, FLUSH_INTERVAL_S)
        config["backend"] |= {"tor": {"socks": self.socks}, "reconnect": False}
        await peer.begin(config)

    async def refusal(self, address):
        """Why the hub can't connect there."""
        with pytest.raises(CallFailed) as refused:
            await self.api.call("connect", node_id=STRANGER, address=address)
        return str(refused.value)


class Streams:
    """The client tor's streams that succeeded: which circuit each took."""

    def __init__(self, network):
        self.circuits = {}  # of each target
        self._control = Connection(f"unix:{network.client.control_socket}", on_event=self._heard)
        self._control.ask("SETEVENTS STREAM")

    def _heard(self, event):
        match event.split():
            case ["STREAM", _, "SUCCEEDED", circuit, target, *_]:
                self.circuits.setdefault(target, []).append(circuit)

    async def of(self, targets, count):
        """The circuits to each target, once it has had so many streams."""
        await until(
            lambda: all(len(self.circuits.get(each, ())) >= count for each in targets), PATIENCE_S, "streams"
        )
        return [self.circuits[each] for each in targets]

    def close(self):
        self._control.close()


@pytest.fixture(scope="module", autouse=True)
def watch(network):
    """All of this module is in the network's namespace, and whatever wants out of there is seen."""
    require_watch(network)
    with network.inside():
        made = Watch()
        yield made
        made.close()


@pytest.fixture(autouse=True)
def nothing_leaves(watch):
    yield
    assert watch.leaks() == []


@pytest.fixture
def streams(network):
    made = Streams(network)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address_file():
    """Where lntor will keep the hub's address."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "address"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(network, watch, tmp_path_factory, address_file):
    made = TorOnly(network, tmp_path_factory.mktemp("run"), address_file)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, made.said
    assert made.supervisor.left_over() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def onion(network, cluster):
    """The address of both peers, once every directory has it: who asks too early is not answered for long."""
    uploads = []

    def heard(event):
        if event != CLOSED and event.split()[1] == "UPLOADED":
            uploads.append(event)

    targets = {peer.name: peer.address for peer in cluster.peers}
    with Connection(f"unix:{network.service.control_socket}", on_event=heard) as control:
        control.ask("SETEVENTS HS_DESC")
        ports = " ".join(f"Port={PORTS[name]},{targets[name]}" for name in PORTS)
        (service, *_) = control.ask(f"ADD_ONION NEW:ED25519-V3 Flags=DiscardPK {ports}")
        await until(lambda: len(uploads) >= 2 * DIRECTORIES, PATIENCE_S, "published")
        yield f"{service.removeprefix('ServiceID=')}.onion"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connected(cluster, onion):
    """The hub has dialled both peers."""
    took = {}
    for peer in cluster.peers:
        began_s = asyncio.get_running_loop().time()
        address = f"{onion}:{PORTS[peer.name]}"
        answer = await cluster.api.call("connect", node_id=peer.node_id, address=address)
        assert answer["frontend"] == "f2", "f1 does not reach onion addresses"
        took[peer.name] = round(asyncio.get_running_loop().time() - began_s, 1)
    print(f"dialled through Tor, s: {took}")
    return cluster


async def test_each_peer_has_a_circuit_of_its_own(network, cluster, onion, streams):
    targets = [f"{onion}:{port}" for port in PORTS.values()]
    for target in targets:  # with one name for both, tor takes one circuit: else this test could not fail
        _, writer = await dial(network, target, circuit="shared")
        writer.close()
    assert len(set().union(*await streams.of(targets, 1))) == 1
    streams.circuits.clear()
    for _ in range(2):
        for peer, target in zip(cluster.peers, targets, strict=True):
            await cluster.api.call("connect", node_id=peer.node_id, address=target)
        for peer in cluster.peers:
            await cluster.api.call("disconnect", node_id=peer.node_id)
    alice, bob = map(set, await streams.of(targets, 2))
    assert not alice & bob
    assert len(alice) == len(bob) == 1, "the name of a peer at the proxy stays"


async def test_the_onion_address_is_announced_and_found_by_gossip(network, connected, address_file):
    alice, bob = connected.peers
    targets = [{"address": address} for address in connected.listening.values()]
    directory = Path(tempfile.mkdtemp(dir=network.directory))
    lntor = Lntor(network, directory, targets, service={"address_file": str(address_file)})
    lntor.address_file = address_file
    lntor.start()
    try:
        address = await lntor.serving()

        async def is_read():
            return (await connected.api.call("getinfo"))["addresses"] == [address]

        _, took_s = await until(is_read, PATIENCE_S, "the backend has read the file")
        print(f"the backend knows its onion address after {took_s:.1f} s")
        await connected.api.call("open", node_id=alice.node_id, funding_sat=500_000, announce=True)
        await connected.mine(DEPTH)
        hub = {"node_id": connected.node_id, "announced": True, "addresses": [address]}

        async def is_known():
            return hub in (await bob.call("graph"))["nodes"]

        await until(is_known, PATIENCE_S, "announced")
        await until(lambda: lntor.status()["descriptor_uploads"] >= 2 * DIRECTORIES, PATIENCE_S, "published")
        await connected.api.call("disconnect", node_id=bob.node_id)

        async def is_out():
            return not any(each["connected"] for each in await bob.call("peers"))

        await until(is_out, PATIENCE_S, "disconnected")
        answer = await bob.call("connect", node_id=connected.node_id)
        assert answer["frontend"] == "standalone"

        async def is_in():
            return bob.node_id in await sessions(connected)

        await until(is_in, PATIENCE_S, "the hub has heard of it")
    finally:
        await lntor.stop()


async def test_what_is_not_there_says_so(connected):
    said = await connected.refusal(NOWHERE)
    assert "onion service not found" in said


async def test_addresses_and_names_of_the_clearnet_are_asked_of_tor_alone(connected):
    said = await asyncio.gather(*map(connected.refusal, (FAR_V4, FAR_V6, FAR_NAME)))
    print(said)
    assert all("the proxy at" in each for each in said)  # this network has no exits


async def test_a_node_that_may_speak_directly_is_seen_doing_so(cluster, watch):
    """Last, since it leaks: else the watch could be blind."""
    seen = set()

    def all_seen():
        seen.update(
            each.to if each.protocol != socket.IPPROTO_UDP else "a resolver" for each in watch.leaks()
        )
        return seen >= {"198.51.100.7", "2001:db8::7", "a resolver"}

    dials = [
        asyncio.create_task(cluster.peers[0].call("connect", node_id=STRANGER, address=address))
        for address in (FAR_V4, FAR_V6, FAR_NAME)
    ]
    await until(all_seen, PATIENCE_S, "all three ways out")
    await cluster.supervisor.stop([cluster.peers[0].name])  # it would go on for the rest of its 20 s
    for each in dials:
        each.cancel()
    await asyncio.gather(*dials, return_exceptions=True)
    watch.leaks()
