"""A backend that starts before its bitcoind, or at the wrong one."""

import asyncio

import pytest
from backend_bench import Bench
from core_double import LOADING, NO_KEYS, NO_WALLET, WHICH_WALLET, CoreDouble

from lnsim.cluster import wait_until
from node.backend import chain_start
from node.backend.chain_client import ChainUnavailable
from node.backend.chain_start import ChainStart
from node.backend.health import complaints
from node.backend.identity import CHAIN_HASHES
from node.errors import Misconfigured
from node.runtime.config import BackendConfig, BitcoindConfig
from node.standalone import chain_client

PATIENCE_S = 10.0  # only a failing test waits for so long


@pytest.fixture
def core(chain, monkeypatch):
    monkeypatch.setattr(chain_start, "RETRY_S", 0.001)
    return CoreDouble(chain)


def away(core):
    core.is_there = False


def loading(core):
    core.error = LOADING


def there(core):
    core.is_there, core.error = True, None


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (away, "nothing answers at http://127.0.0.1:38332; start bitcoind, or correct bitcoind.url"),
        (loading, "bitcoind is starting: Verifying blocks"),
    ],
)
async def test_it_waits_says_so_and_goes_on_by_itself(core, tmp_path, capsys, trouble, words):
    trouble(core)
    bench = Bench(tmp_path / "node", core)
    starting = asyncio.ensure_future(bench.start())
    await bench.until(lambda: hasattr(bench, "backend") and bench.backend.waits_for)
    (said,) = complaints(bench.backend)
    assert said.startswith("waiting for bitcoind at http://127.0.0.1:18443")
    assert words in said
    assert words in capsys.readouterr().out
    there(core)
    await asyncio.wait_for(starting, PATIENCE_S)
    assert complaints(bench.backend) == []
    assert "bitcoind_is_there" in capsys.readouterr().out
    await bench.drop()


async def test_a_cookie_that_is_not_there_yet_is_waited_for(tmp_path):
    config = BitcoindConfig(cookie_file=str(tmp_path / ".cookie"))
    client, http = chain_client(config)
    with pytest.raises(ChainUnavailable, match=r"bitcoind\.cookie_file: .*is not there; start bitcoind"):
        await client.state()
    (tmp_path / ".cookie").mkdir()
    with pytest.raises(Misconfigured, match=r"bitcoind\.cookie_file"):
        await client.state()
    await http.close()


class Start(ChainStart):
    """Keeps what it says."""

    def __init__(self, client, config):
        self.said = []
        super().__init__(client, config, self.said.append)

    async def has_said(self) -> bool:
        return bool(self.said)


def on(core, network="signet", **changes) -> ChainStart:
    config = BackendConfig(network=network, bitcoind=BitcoindConfig(wallet="hot"), **changes)
    core.changes["getblockhash"] = lambda _: CHAIN_HASHES[network][::-1].hex()
    return Start(core.client(), config)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"initialblockdownload": True}, "block 130 of 130"),
        ({"headers": 850_000}, "block 130 of 850000"),
    ],
)
async def test_it_waits_while_bitcoind_is_far_behind(core, facts, words):
    core.says(**facts)
    start = on(core)
    running = asyncio.ensure_future(start.run())
    await wait_until(start.has_said, PATIENCE_S, "it says what it waits for", pause_s=0.001)
    assert start.said[0] == f"waiting for bitcoind to catch up: {words}"
    core.says()
    found = await asyncio.wait_for(running, PATIENCE_S)
    assert found.state.tip.height == 130
    assert start.said[-1] == ""


async def test_an_idle_regtest_is_not_waited_for(core):
    core.says(initialblockdownload=True)
    await asyncio.wait_for(on(core, "regtest").run(), PATIENCE_S)


async def test_the_wrong_network_is_refused_with_both_names(core):
    start = on(core, "mainnet")
    core.changes["getblockhash"] = lambda _: CHAIN_HASHES["signet"][::-1].hex()
    with pytest.raises(Misconfigured) as refused:
        await start.run()
    assert str(refused.value) == (
        "network: is mainnet, and bitcoind at http://127.0.0.1:18443 is on signet; "
        "correct network, or bitcoind.url"
    )


async def test_a_pruned_bitcoind_is_refused_unless_lookups_are_waived(core):
    core.says(pruned=True, pruneheight=800_000)
    with pytest.raises(
        Misconfigured, match=r"bitcoind\.url: .*pruned.*800000.*prune=0.*assume_channels_valid"
    ):
        await on(core).run()
    assert await on(core, assume_channels_valid=True).run()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NO_WALLET, r"not loaded; `bitcoin-cli createwallet hot`, or `loadwallet hot`"),
        (WHICH_WALLET, r"several are loaded: name one"),
        (NO_KEYS, r"no available keys; it must have private keys"),
    ],
)
async def test_a_wallet_that_will_not_do_is_refused_with_the_remedy(core, error, words):
    core.errors["getnewaddress"] = error
    with pytest.raises(Misconfigured, match=r'^bitcoind\.wallet: "hot": .*' + words):
        await on(core).run()


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_credentials_are_refused(core, status):
    core.status = status
    with pytest.raises(
        Misconfigured, match=rf"HTTP {status}.*bitcoind\.user and bitcoind\.password, or .*cookie"
    ):
        await on(core).run()
