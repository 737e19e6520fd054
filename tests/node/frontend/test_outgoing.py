"""What a frontend dials goes the way that the backend says, and through the proxy each peer by its own name there."""

from types import SimpleNamespace

import pytest
from noise_client import NoiseClient, Site
from socks_server import SocksServer, reply

from node.frontend.frontend import Frontend
from node.frontend.outgoing import Outgoing, leak
from node.link.messages import DialFailed, Dialling, Hello, Status
from node.runtime.addresses import split_address
from node.runtime.config import FrontendConfig, NodeKeyConfig

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735"
ALL = ("ipv4", "ipv6", "dns", "onion", "proxy")


async def opened(site: Site, dialling: Dialling, **config) -> Frontend:
    site.backend.dialling = dialling
    return await site.open(**config)


async def failed(site: Site, address: str, number: int = 1, **options) -> str:
    site.backend.dial(number, site.backend.node_id, address, **options)
    found = await site.backend.heard.until(
        lambda: [each for each in site.backend.heard.of(DialFailed) if each.dial == number]
    )
    return found[0].cause


async def test_a_peer_behind_an_onion_address_becomes_a_session(site: Site):
    peer = NoiseClient("far", None)
    listener = await site.runtime.listen("127.0.0.1:0", lambda: peer)
    async with SocksServer(target=listener.address) as proxy:
        await opened(site, Dialling(socks=proxy.address))
        site.backend.dial(5, peer.node_id, ONION)
        await peer.established()
        host, port = split_address(ONION)[1:]
        assert [asked[2:] for asked in proxy.asked] == [(3, host, port)]
        peer.close()
        await peer.closed()
    listener.close()


async def test_each_peer_has_a_name_of_its_own_at_the_proxy_and_keeps_it(site: Site):
    ids = [NoiseClient(name, None).node_id for name in ("alice", "bob", "alice")]
    async with SocksServer(reply(4)) as proxy:
        frontend = await opened(site, Dialling(socks=proxy.address))
        for number, node_id in enumerate(ids):
            site.backend.dial(number, node_id, ONION)
        await site.backend.heard.first(DialFailed, 3)
        # they go side by side: told apart by how often a name came
        names = sorted((asked.user, asked.password) for asked in proxy.asked)
        assert len(names) == 3
        assert len(set(names)) == 2
        assert all(len(user) == len(password) == 32 for user, password in names)
        again = Frontend(frontend.runtime, FrontendConfig(), "f2", "test")
        again._outgoing.configure(Dialling(socks=proxy.address), [])
        other = {again._outgoing._proxy(node_id).user for node_id in ids}
        assert not other & {user for user, _ in names}, "a name lasts as long as the process"


async def test_without_isolation_no_name_is_given(site: Site):
    async with SocksServer(reply(1)) as proxy:
        await opened(site, Dialling(socks=proxy.address, isolate=False))
        await failed(site, ONION)
        assert proxy.asked[0][:2] == ("", "")


@pytest.mark.parametrize(
    "address", ["node.invalid:9735", "127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"]
)
async def test_what_goes_through_the_proxy_goes_nowhere_else(site: Site, address: str):
    async with SocksServer(reply(2)) as proxy:
        ways = Dialling(socks=proxy.address, ipv4="proxy", ipv6="proxy", dns="proxy")
        await opened(site, ways)
        assert await failed(site, address) == f"the proxy at {proxy.address}: its rules forbid it"
        assert len(proxy.asked) == 1


async def test_a_proxy_of_its_own_wins(site: Site):
    async with SocksServer(reply(1)) as theirs, SocksServer(reply(1)) as ours:
        await opened(site, Dialling(socks=theirs.address), socks=ours.address)
        assert ours.address in await failed(site, ONION)
        assert (len(theirs.asked), len(ours.asked)) == (0, 1)


async def test_what_is_not_dialled_says_so(site: Site):
    await opened(site, Dialling(ipv4="never", dns="invented later"))
    assert await failed(site, "1.2.3.4:1") == "ipv4 addresses are not dialled"
    assert await failed(site, "node.invalid:1", 2) == "dns addresses are not dialled"
    assert await failed(site, ONION, 3) == "no SOCKS proxy is set (tor.socks)"


async def test_a_proxy_that_hangs_is_told_by_the_clock(site: Site):
    async with SocksServer(b"") as proxy:
        await opened(site, Dialling(socks=proxy.address))
        cause = await failed(site, ONION, timeout_s=0.2)
        assert cause == f"no answer through the proxy at {proxy.address} within 0.2 s"


async def test_a_frontend_says_what_it_reaches(site: Site):
    await site.open(socks="127.0.0.1:9", reaches=("ipv4", "onion"))
    assert site.backend.heard.of(Hello)[0].capabilities[:4] == ("ipv4", "onion", "proxy", "own_proxy")
    assert Frontend(site.runtime, FrontendConfig(), "f2", "test").uplink.capabilities[:5] == ALL


def test_what_was_dialled_directly_does_not_outlive_the_leave_to_do_so():
    outgoing = Outgoing(None, FrontendConfig(listen="127.0.0.1:1"))  # it starts nothing here
    far, onion = (SimpleNamespace(dial=1, address=address) for address in ("1.2.3.4:1", ONION))
    came = SimpleNamespace(dial=None, address="1.2.3.4:1")
    through = Dialling("127.0.0.1:9050", ipv4="proxy", only=True)
    assert outgoing.configure(Dialling(), [far, onion, came]) == []
    assert outgoing.configure(through, [far, onion, came]) == [far]
    assert outgoing.configure(through, [far, onion, came]) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"listen": "0.0.0.0:0"}, "listen: 0.0.0.0:0: the backend has tor.only"),
        ({"proxy_listen": "10.0.0.1:9735", "proxy_from": ("10.0.0.2",)}, "proxy_listen: 10.0.0.1:9735"),
        (
            {"handshakes": "frontend", "node_key": NodeKeyConfig(provider="aws-sm")},
            "node_key.provider: aws-sm: leaves",
        ),
    ],
)
def test_a_port_for_others_is_refused_where_tor_is_all(config, says):
    assert leak(FrontendConfig(**{"listen": "127.0.0.1:9735"} | config)).startswith(says)
    assert not leak(FrontendConfig(listen="unix:/run/tor/frontend"))


async def test_the_process_ends_before_its_port_opens(site: Site):
    site.backend.dialling = Dialling(only=True, socks="127.0.0.1:9")
    frontend = await site.start(listen="0.0.0.0:0")
    await site.backend.heard.first(Hello)
    await site.backend.heard.first(Status, 2)  # it goes on here, for lack of a process
    assert not frontend.listening.is_set()
    assert "tor.only" in str(site.failures.pop())
