"""In front of a frontend: load balancers that name their peers, limits at the door, the key where it may be."""

import asyncio

import pytest
from noise_client import INIT, NoiseClient, Site

from lnsim.graph_generator import REGTEST
from node.crypto.keys import public_key
from node.errors import Refused
from node.link.messages import HandshakeDone, HandshakeStarted, SessionReady, Shares, Status
from node.runtime.addresses import split_address
from node.runtime.config import NodeKeyConfig
from node.wire import bolt1, bolt7
from node.wire.codec import decode, encode

FROM = b"PROXY TCP4 8.8.4.4 192.0.2.7 4711 9735\r\n"
HERE = ("127.0.0.1",)


class Proxied(NoiseClient):
    """Comes through a balancer: its header is first."""

    def __init__(self, name: str, responder_id: bytes, header: bytes) -> None:
        super().__init__(name, responder_id)
        self.header = header

    def connection_made(self, transport) -> None:
        transport.write(self.header)
        super().connection_made(transport)


async def through(site: Site, address: str, header: bytes, name: str = "alice") -> NoiseClient:
    client = Proxied(name, site.backend.node_id, header)
    site.clients.append(client)
    await site.runtime.connect(address, lambda: client)
    return client


async def test_a_peer_behind_a_balancer_has_its_own_address(site: Site) -> None:
    frontend = await site.open(proxy_listen="127.0.0.1:0", proxy_from=HERE)
    client = await through(site, frontend.proxy_address, FROM)
    await client.established()
    client.send(INIT)
    (ready,) = await site.backend.ready()
    (started,) = site.backend.heard.of(HandshakeStarted)
    (raw,) = await client.of_type(bolt1.Init.number)

    assert ready.address == started.address == "8.8.4.4:4711"
    init = decode(raw)
    assert isinstance(init, bolt1.Init)
    assert init.remote_addr == bytes((1, 8, 8, 4, 4)) + (4711).to_bytes(2, "big")


async def test_a_health_check_of_the_balancer_is_no_peer(site: Site) -> None:
    frontend = await site.open(proxy_listen="127.0.0.1:0", proxy_from=HERE)
    local = bytes.fromhex("0d0a0d0a000d0a515549540a") + b"\x20\x00\x00\x00"
    _, host, port = split_address(frontend.proxy_address)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(local)
    writer.close()
    await reader.read()

    client, ready = await site.peer("bob")
    assert len(site.backend.heard.of(HandshakeStarted)) == 1
    assert ready.address.startswith("127.0.0.1:")
    client.close()


async def test_who_is_not_listed_is_not_believed(site: Site) -> None:
    frontend = await site.open(proxy_listen="127.0.0.1:0", proxy_on_listen=True, proxy_from=("192.0.2.0/24",))
    client = await through(site, frontend.proxy_address, FROM)
    await client.closed()
    other = await through(site, frontend.address, FROM)  # for an ordinary peer this is a wrong act one
    await other.closed()
    client, ready = await site.peer("bob")
    assert ready.address.startswith("127.0.0.1:")


async def test_a_balancer_without_a_header_is_let_go(site: Site) -> None:
    frontend = await site.open(proxy_on_listen=True, proxy_from=HERE)
    client = await through(site, frontend.address, b"")
    await client.closed()

    assert not site.backend.heard.of(HandshakeStarted)
    assert not frontend.connections


async def test_a_balancer_may_come_to_the_ordinary_port(site: Site) -> None:
    frontend = await site.open(proxy_on_listen=True, proxy_from=HERE)
    client = await through(site, frontend.address, FROM)
    await client.established()
    client.send(INIT)
    (ready,) = await site.backend.ready()

    assert ready.address == "8.8.4.4:4711"


async def test_limits_are_those_of_the_peers_own_address(site: Site) -> None:
    frontend = await site.open(proxy_listen="127.0.0.1:0", proxy_from=HERE)
    site.backend.send(Shares(1, 99, 99, 99.0, 1e6, connections_per_address=2))
    await site.backend.heard.until(
        lambda: [each for each in site.backend.heard.of(Status) if each.shares == 1]
    )
    clients = [await through(site, frontend.proxy_address, FROM, f"p{each}") for each in range(3)]

    await clients[0].established()
    await clients[1].established()
    await clients[2].closed()
    other = await through(site, frontend.proxy_address, FROM.replace(b"8.8.4.4", b"8.8.8.8"), "p9")
    await other.established()
    assert frontend.admission.refused == {"address_connections": 1}
    assert len(site.backend.heard.of(HandshakeStarted)) == 3  # the backend hears nothing of who is refused


async def test_whoever_goes_makes_room(site: Site) -> None:
    frontend = await site.open(limits_exempt=())
    site.backend.send(Shares(1, 1, 1, 99.0, 1e6))
    await site.backend.heard.until(
        lambda: [each for each in site.backend.heard.of(Status) if each.shares == 1]
    )
    first, ready = await site.peer("alice")
    second = await site.connect("bob")
    await second.closed()
    first.close()
    await site.backend.ended(ready.session)
    assert (frontend.admission.connections, frontend.admission.handshakes) == (0, 0)
    await site.peer("carol")


async def open_with_key(site: Site, tmp_path, *, agreed: bool = True, secret: bytes | None = None):
    path = tmp_path / "node.key"
    path.write_text((secret or site.backend.secret).hex())
    path.chmod(0o600)
    site.backend.frontend_handshakes = agreed
    return await site.start(handshakes="frontend", node_key=NodeKeyConfig(path=str(path)))


async def test_with_the_key_a_frontend_runs_handshakes_itself(site: Site, tmp_path) -> None:
    await open_with_key(site, tmp_path)
    await site.listening()
    client, ready = await site.peer("alice")

    (done,) = site.backend.heard.of(HandshakeDone)
    assert (done.session, done.node_id) == (ready.session, client.node_id)
    assert not site.backend.heard.of(HandshakeStarted)
    await client.pinged()


async def test_a_wrong_act_ends_there(site: Site, tmp_path) -> None:
    frontend = await open_with_key(site, tmp_path)
    await site.listening()
    client = NoiseClient("mallory", public_key(bytes(31) + b"\x09"))
    site.clients.append(client)
    await site.runtime.connect(frontend.address, lambda: client)
    await client.closed()

    assert not site.backend.heard.of(HandshakeDone)
    assert not frontend._local._running


async def test_without_the_backends_leave_the_backend_runs_them(site: Site, tmp_path) -> None:
    await open_with_key(site, tmp_path, agreed=False)
    await site.listening()
    await site.peer("alice")

    assert site.backend.heard.of(HandshakeStarted)
    assert not site.backend.heard.of(HandshakeDone)
    assert site.backend.heard.of(SessionReady)


async def test_another_nodes_key_ends_the_process(site: Site, tmp_path) -> None:
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    site.runtime._on_failure = lambda _, error: failed.done() or failed.set_result(error)
    await open_with_key(site, tmp_path, secret=bytes(31) + b"\x09")

    error = await asyncio.wait_for(failed, 5)
    assert isinstance(error, Refused)
    assert site.backend.node_id.hex() in str(error)


@pytest.mark.parametrize("field", ["proxy_from", "limits_exempt"])
def test_a_network_that_is_none_is_named(field: str, tmp_path) -> None:
    from node.runtime.config import FrontendConfig, load

    path = tmp_path / "f.yaml"
    path.write_text(f"{field}: [10.0.0.0/40]")
    with pytest.raises(Refused, match=f"{field}: .*10.0.0.0/40"):
        load(FrontendConfig, path, {})


async def test_a_peer_that_has_had_its_share_of_gossip_waits_for_more(site: Site, small) -> None:
    site.backend.knows(small)
    frontend = await site.open()
    share = Shares(1, 99, 99, 99.0, 0.0, gossip_bytes_per_s_per_peer=1, gossip_burst_per_peer=100)
    site.backend.send(share)
    await site.backend.heard.until(
        lambda: [each for each in site.backend.heard.of(Status) if each.shares == 1]
    )
    client, ready = await site.peer("alice")
    everything = encode(bolt7.GossipTimestampFilter(REGTEST, 0, 0xFFFF_FFFF))
    client.send(everything)
    await client.of_type(bolt7.NodeAnnouncement.number, 4)
    client.send(everything)
    await client.pinged()

    connection = frontend.connections[ready.session]
    assert connection.starved
    assert len(await client.of_type(bolt7.NodeAnnouncement.number)) == 4
    site.backend.send(Shares(2, 99, 99, 99.0, 0.0))
    await client.of_type(bolt7.NodeAnnouncement.number, 8)
    assert not connection.starved
