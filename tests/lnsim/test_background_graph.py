"""A background graph in a node's database: there from its first start, valid, alive, and open to a storm."""

import pytest

from lnsim.background_graph import (
    DAY_S,
    WEEK_S,
    cache_directory,
    deltas,
    newest_s,
    node_count,
    plant,
    shape_of,
)
from lnsim.chain.embedded import EmbeddedNode
from lnsim.graph_generator import REGTEST, generate, message_of, node_secret
from lnsim.scenario.model import GraphSpec
from node.backend.backend import Backend
from node.backend.sqlite_store import SqliteStore
from node.crypto.keys import public_key
from node.errors import Refused
from node.gossip import raw as gossip
from node.gossip.graph import ChannelAdded, ChannelUpdated, Graph
from node.gossip.validation import Verdict, check
from node.runtime.config import BackendConfig, BitcoindConfig
from node.runtime.runtime import SystemRuntime

NOW_S = 1_790_000_123.0
SEED = 11
SPEC = GraphSpec(channels=30, nodes=12)


@pytest.fixture
def file(tmp_path):
    """Somebody's messages: of another time, one direction missing, one update twice."""
    path = tmp_path / "messages"
    every = [message_of(delta) for delta in generate(5, channels=30, nodes=12)]
    updates = [raw for raw in every if raw[:2] == b"\x01\x02"]
    every.remove(updates[7])
    every.append(updates[8])
    path.write_bytes(b"".join(len(raw).to_bytes(2, "big") + raw for raw in every))
    return GraphSpec(file=str(path))


@pytest.fixture(params=["generated", "file"])
def spec(request):
    return SPEC if request.param == "generated" else request.getfixturevalue("file")


@pytest.mark.parametrize("later_s", [0, 3 * DAY_S, WEEK_S - DAY_S])
def test_whenever_it_is_used_all_of_it_is_valid_and_none_of_it_stale(spec, tmp_path, later_s):
    graph, now_s = Graph(REGTEST), NOW_S + later_s
    for delta in deltas(spec, SEED, now_s, tmp_path):
        assert check(graph, message_of(delta), int(now_s)) is Verdict.ACCEPTED
        assert graph.apply(delta)
    assert (len(graph.channels), len(graph.nodes)) == (30, 12)
    assert graph.stale(int(now_s + DAY_S)) == []
    for channel in graph.channels.values():
        for update in filter(None, (channel.update_1, channel.update_2)):
            assert gossip.update_fields(update).htlc_maximum_msat <= channel.capacity_sat * 1000


def test_a_files_terms_are_kept_and_its_keys_are_not(file, tmp_path):
    told = list(deltas(file, SEED, NOW_S, tmp_path))
    theirs = [message_of(delta) for delta in generate(5, channels=30, nodes=12)]
    assert not {message_of(delta) for delta in told} & set(theirs)

    def terms(raws):
        rows = {gossip.update_fields(raw) for raw in raws if raw[:2] == b"\x01\x02"}
        return sorted((u.short_channel_id, u.channel_flags, u[5:]) for u in rows)

    ours, wanted = terms(map(message_of, told)), terms(theirs)
    assert len(ours) == len(wanted) - 1
    assert set(ours) < set(wanted)


def test_nothing_is_signed_twice_in_a_week(tmp_path):
    first = list(deltas(SPEC, SEED, NOW_S, tmp_path))
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    assert list(deltas(SPEC, SEED, NOW_S + 60, tmp_path)) == first
    assert path.stat().st_mtime_ns == written
    assert list(deltas(SPEC, SEED, NOW_S + WEEK_S, tmp_path)) != first
    assert len(list(tmp_path.iterdir())) == 1, "last week's is gone"


def test_who_speaks_for_a_node_has_its_key(spec, tmp_path):
    drawn, graph = shape_of(spec, SEED), Graph(REGTEST)
    for delta in deltas(spec, SEED, NOW_S, tmp_path):
        graph.apply(delta)
    for index, short_channel_id in enumerate(drawn.short_channel_id.tolist()):
        ends = (int(drawn.node_1[index]), int(drawn.node_2[index]))
        channel = graph.channels[short_channel_id]
        assert sorted(public_key(node_secret(SEED, end)) for end in ends) == [
            channel.node_id_1,
            channel.node_id_2,
        ]
        assert max(channel.timestamp(0), channel.timestamp(1)) <= newest_s(NOW_S)


class AtThatTime(SystemRuntime):
    def now(self) -> float:
        return NOW_S


async def test_a_backend_starts_on_it_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, told = tmp_path / "db.sqlite", list(deltas(SPEC, SEED, NOW_S))
    assert len(list(cache_directory().iterdir())) == 1
    store = SqliteStore(path)
    planted = plant(store, told)
    store.close()
    assert (planted.channels, planted.updates, planted.nodes) == (30, 60, 12)
    chain = EmbeddedNode(lambda: NOW_S)
    runtime = AtThatTime(lambda name, error: pytest.fail(f"{name}: {error}"))
    config = BackendConfig(
        data_dir=str(tmp_path),
        assume_channels_valid=True,
        bitcoind=BitcoindConfig(user="u", poll_interval_s=0.01),
    )
    backend = Backend(runtime, config, chain.client(""), SqliteStore(path), "test", chain.hints())
    await backend.start()
    chain.mine(2)
    while backend.chain.height != chain.chain.height:
        await runtime.run_blocking("test", lambda: None)
    graph = backend.graph
    assert (len(graph.channels), len(graph.nodes), graph.spent) == (30, 12, {})
    served = [delta for delta in graph.snapshot() if isinstance(delta, ChannelAdded | ChannelUpdated)]
    assert sorted(map(message_of, served)) == sorted(
        message_of(delta) for delta in told if isinstance(delta, ChannelAdded | ChannelUpdated)
    )
    await backend.stop()
    chain.close()


def test_as_many_nodes_as_the_real_graph_has():
    assert [node_count(GraphSpec(channels=n)) for n in (1, 2, 30, 50_808)] == [2, 2, 10, 17_324]
    assert node_count(SPEC) == 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no channel"),
        (b"\x00\x05hello", "no gossip message at byte 0"),
        (b"\x00\x8a\x01\x02" + bytes(136) + b"\xff\xff\x01\x02" + bytes(136), "byte 140 is cut"),
        (None, "name a file"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, words):
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    with pytest.raises(Refused, match=words):
        deltas(GraphSpec(file=str(tmp_path / "f")), SEED, NOW_S, tmp_path)
