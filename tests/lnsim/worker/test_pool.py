"""Who lives where, and how commands and answers are divided among workers."""

from hypothesis import given
from hypothesis import strategies as st

from lnsim.scenario.model import ChannelsSpec, PeersSpec
from lnsim.worker.handles import Part, SwarmHandle, merge, split
from lnsim.worker.pool import crews, node_names, populate

WHOLE = ChannelsSpec()


class Record:
    """A worker that notes what it is told, and answers from a list."""

    def __init__(self, *answers):
        self.calls = []
        self.answers = list(answers)

    async def call(self, target, name, arguments):
        self.calls.append((target, name, arguments))
        if name == "start_node":
            return {"node_id": f"id of {arguments['name']}", "listen": "here"}
        return self.answers.pop(0) if self.answers else None


def test_few_peers_need_one_worker_of_their_kind():
    peers = {"payers": PeersSpec(count=3, channels=WHOLE), "idle": PeersSpec(count=50)}
    nodes, light = crews(peers, 3)
    assert nodes.nodes == (("payers", "payers1"), ("payers", "payers2"), ("payers", "payers3"))
    assert not nodes.light
    assert light.light == {"idle": 50}
    assert crews({}, 3) == []


def test_where_there_are_too_few_processors_the_larger_kind_shares():
    peers = {"payers": PeersSpec(count=12, channels=WHOLE), "idle": PeersSpec(count=9_000)}
    assert [(len(crew.nodes), crew.light) for crew in crews(peers, 3)] == [
        (12, {}),
        (0, {"idle": 4_500}),
        (0, {"idle": 4_500}),
    ]
    assert len(crews(peers, 1)) == 2  # one of each kind, whatever the number


@given(
    whole=st.dictionaries(st.sampled_from("abc"), st.integers(1, 60)),
    light=st.dictionaries(st.sampled_from("xyz"), st.integers(1, 9_000)),
    most=st.integers(1, 9),
)
def test_everybody_lives_somewhere_once(whole, light, most):
    peers = {group: PeersSpec(count=count, channels=WHOLE) for group, count in whole.items()}
    peers |= {group: PeersSpec(count=count) for group, count in light.items()}
    dealt = crews(peers, most)
    assert len(dealt) <= max(most, 2)
    assert all(crew.nodes or crew.light for crew in dealt)
    names = sorted(name for crew in dealt for _, name in crew.nodes)
    assert names == sorted(name for group in whole for name in node_names(group, peers[group]))
    for group, count in light.items():
        assert sum(crew.light.get(group, 0) for crew in dealt) == count


@given(counts=st.lists(st.integers(1, 2_000), min_size=1, max_size=5), count=st.integers(0, 10_000))
def test_parts_divide_rates_and_numbers(counts, count):
    shares = split({"per_s": 100.0, "count": count, "share": 0.5, "ways": ["a"], "max_open": None}, counts)
    assert sum(share["count"] for share in shares) == count
    assert abs(sum(share["per_s"] for share in shares) - 100) < 1e-6
    assert all((share["share"], share["ways"], share["max_open"]) == (0.5, ["a"], None) for share in shares)


def test_answers_become_one():
    assert merge([{"connected": 3, "who": ["a"]}, {"connected": 4, "who": ["b"], "late": 1}]) == {
        "connected": 7,
        "who": ["a", "b"],
        "late": 1,
    }
    assert merge([True, True]) is True
    assert merge([None, None]) is None
    assert merge(["same", "same"]) == "same"


async def test_a_command_reaches_every_part_of_a_group():
    one, two = Record({"connected": 30}), Record({"connected": 10})
    swarm = SwarmHandle("crowd", [Part(one, 30), Part(two, 10)])
    assert await swarm.call("connect", per_s=40.0) == {"connected": 40}
    assert one.calls == [("crowd", "connect", {"per_s": 30.0})]
    assert two.calls == [("crowd", "connect", {"per_s": 10.0})]


async def test_a_topology_is_started_where_it_was_dealt():
    peers = {"payers": PeersSpec(count=2, channels=WHOLE), "idle": PeersSpec(count=3_000, listens=True)}
    dealt = crews(peers, 3)
    workers = [Record() for _ in dealt]
    groups = await populate(
        workers, dealt, peers, 7, lambda name: {"alias": name}, lambda spec: {"listens": spec.listens}
    )
    assert [node.node_id for node in groups["payers"].nodes] == ["id of payers1", "id of payers2"]
    assert groups["payers"].swarm is None
    assert [call for worker in workers[1:] for call in worker.calls] == [
        (
            "",
            "start_swarm",
            {
                "group": "idle",
                "seed": f"7/idle/{part}",
                "config": {"listens": True, "count": 1_500, "part": part, "parts": 2},
            },
        )
        for part in (0, 1)
    ]
