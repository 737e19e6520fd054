"""What can't be had of a node that was not started here is refused before the run, with the path of the field."""

import secrets

import pytest

from lnsim.run.execute import Where
from lnsim.scenario import workloads as wl
from lnsim.scenario.model import ChainSpec, ChannelsSpec, PeersSpec, Scenario, Topology
from lnsim.target import ChainEndpoint, Target, check, greet, network_of
from node.backend.identity import CHAIN_HASHES
from node.crypto.keys import public_key
from node.errors import Refused

NODE_ID = public_key(bytes(31) + b"\x07").hex()
PEERS = {"nodes": PeersSpec(count=2, channels=ChannelsSpec())}


def paying(**fields):
    return wl.Payments(**{"payers": ("nodes",), "payees": ("nodes",), "rate_per_s": 1.0, **fields})


def scenario(*workloads, peers=None, **fields):
    return Scenario(
        duration_s=10,
        topology=Topology(peers=PEERS if peers is None else peers),
        workloads=workloads,
        **fields,
    )


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (wl.Kill(what="f1"), r"workloads\[0\].run: kill is for processes"),
        (wl.Restart(what="backend"), r"workloads\[0\].run: restart is for"),
        (wl.Pause(what="f1"), r"workloads\[0\].run: pause is for"),
        (wl.RollingRestart(), r"workloads\[0\].run: rolling_restart is for"),
        (wl.LinkFault(how="cut"), r"workloads\[0\].run: link is for"),
        (wl.SlowDisk(), r"workloads\[0\].run: slow_disk is for"),
        (wl.TorRestart(), r"workloads\[0\].run: tor_restart is for"),
        (wl.TorCircuits(), r"workloads\[0\].run: tor_circuits is for"),
        (paying(payers=("hub",)), r"workloads\[0\].payers: hub is a target"),
        (paying(payees=("nodes", "hub")), r"workloads\[0\].keysend: 1 where hub is paid"),
        (wl.Hodl(payers=("nodes",), payees=("hub",)), r"workloads\[0\].payees: hub is a target"),
    ],
)
def test_never_at_a_target(workload, words):
    with pytest.raises(Refused, match=words):
        check(scenario(workload), has_chain=True)


def test_a_target_is_not_reached_through_an_onion_service_of_ours():
    peers = {"light": PeersSpec(count=1, through="onion")}
    with pytest.raises(Refused, match=r"topology.peers.light.through: a target is reached at its address"):
        check(scenario(peers=peers), has_chain=True)


@pytest.mark.parametrize(
    "workload",
    [paying(), wl.Mine(), wl.Reorg(), wl.FeeSpike(), wl.BlockStall(), wl.ChannelChurn(group="nodes")],
)
def test_with_a_chain_only(workload):
    check(scenario(workload), has_chain=True)
    with pytest.raises(Refused, match=r"workloads\[0\].run: \w+ needs a chain: name its RPC by --chain"):
        check(scenario(workload, peers={}), has_chain=False)


def test_other_fields_that_need_a_chain():
    with pytest.raises(Refused, match=r"topology.peers.nodes.channels: channels need a chain"):
        check(scenario(), has_chain=False)
    blocks = Scenario(duration_s=1, topology=Topology(chain=ChainSpec(block_interval_s=1)))
    with pytest.raises(Refused, match=r"topology.chain.block_interval_s: blocks need a chain"):
        check(blocks, has_chain=False)


def test_keysend_to_the_target_and_light_peers_pass():
    check(scenario(paying(payees=("hub",), keysend=1.0)), has_chain=True)
    light = {"idle": PeersSpec(count=1)}
    check(scenario(wl.SyncStorm(group="idle"), wl.Rude(), peers=light), has_chain=False)


def test_modes_and_metrics():
    with pytest.raises(Refused, match=r"modes: .* world mode only"):
        check(scenario(peers={}, modes=("world",)), has_chain=False)
    with pytest.raises(Refused, match=r"expect\[1\]: frontend.rss_mb.max is of processes"):
        check(scenario(expect=("sync.count > 0", "frontend.rss_mb.max < 1")), has_chain=True)
    check(scenario(expect=("chain.height.last > 0",)), has_chain=True)
    with pytest.raises(Refused, match=r"expect\[0\]: chain.height.last"):
        check(scenario(peers={}, expect=("chain.height.last > 0",)), has_chain=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("127.0.0.1:9735", "write NODE_ID@HOST:PORT"),
        (f"{'02' + 'ff' * 32}@127.0.0.1:9735", "not a point of the curve"),
        (f"{NODE_ID}@127.0.0.1", "is no address"),
        (f"{NODE_ID}@unix:/tmp/socket", "nodes listen at HOST:PORT"),
    ],
)
def test_what_is_no_target(text, words):
    with pytest.raises(Refused, match=words):
        Target.parse(text)


def test_a_chain_by_password_or_cookie(tmp_path):
    found = ChainEndpoint.parse("http://me:a%40b@127.0.0.1:18443")
    assert found == ChainEndpoint("http://127.0.0.1:18443", "me", "a@b")
    cookie = tmp_path / ".cookie"
    cookie.write_text("__cookie__:abc\n")
    assert ChainEndpoint.parse("http://127.0.0.1:18443", cookie).password == "abc"
    for url, path in (
        ("127.0.0.1:18443", None),
        ("http://127.0.0.1:18443", None),
        ("http://h:1", tmp_path / "no"),
    ):
        with pytest.raises(Refused, match="--chain"):
            ChainEndpoint.parse(url, path)


@pytest.mark.parametrize(
    "options",
    [
        {"world": True, "target": f"{NODE_ID}@h:1"},
        {"chain": "http://a:b@h:1"},
        {"world": True, "ray": "auto"},
        {"target": f"{NODE_ID}@h:1", "listen": "127.0.0.1"},
    ],
)
def test_options_that_exclude_each_other(options):
    nothing = {"world": False, "target": "", "chain": "", "chain_cookie": None, "ray": "", "listen": ""}
    with pytest.raises(Refused, match="--"):
        Where.of(**{**nothing, **options})


async def test_nobody_there_is_told():
    with pytest.raises(Refused, match="nobody listens there"):
        await greet(Target(NODE_ID, "127.0.0.1:1"), secrets.token_bytes)


def test_networks_are_test_networks():
    target, chains = Target(NODE_ID, "127.0.0.1:9735"), CHAIN_HASHES
    assert network_of(target, None) == network_of(target, chains["mainnet"] + chains["regtest"]) == "regtest"
    assert network_of(target, chains["signet"]) == "signet"
    with pytest.raises(Refused, match="the node is on mainnet; runs are for regtest, signet, testnet"):
        network_of(target, chains["mainnet"])
