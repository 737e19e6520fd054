"""`cluster`, `drain` and `undrain`, against links that said hello."""

from io import StringIO

import pytest
from rich.console import Console
from test_links import HELLO, Bench

from node.backend import cluster
from node.backend.graph_ages import GraphAges
from node.errors import Refused
from node.link import messages as m
from node.operations.commands import seconds
from node.operations.table import frontends


class FakeNode:
    """The parts of a backend that are asked."""

    def __init__(self, *benches: Bench) -> None:
        self.runtime = benches[0].runtime
        self.graph_ages = GraphAges()
        self.graph = self
        self.sequence = 9
        self.switchboard = self
        self.links = {bench.link.frontend_id: bench.link for bench in benches}


def newer() -> Bench:
    return Bench(m.Hello(1, 1, "f1", "test", capabilities=("ipv4", m.DRAINS)))


def test_a_frontend_that_understands_it_is_asked_to_drain():
    bench = newer()
    seen = cluster.drain(FakeNode(bench), "f1", 30.0)
    assert bench.told(m.Drain) == [m.Drain(30.0)]
    assert (seen["state"], bench.link.draining) == ("drained", True)

    seen = cluster.drain(FakeNode(bench), "f1", None)
    assert bench.told(m.Drain)[-1] == m.Drain(None)
    assert seen["state"] == "serving"


def test_an_older_frontend_never_hears_what_it_would_not_know():
    bench = Bench(HELLO)
    with pytest.raises(Refused, match="stop it instead"):
        cluster.drain(FakeNode(bench), bench.link.frontend_id, 30.0)
    assert not bench.told(m.Drain)
    assert not bench.link.draining


def test_a_frontend_that_ends_by_itself_is_not_dialled_through():
    bench = newer()
    bench.tell(m.Status(1, 0, 0, 0, 0, 9, draining=True))
    assert bench.link.draining


def test_who_is_not_there_is_named_with_who_is():
    with pytest.raises(Refused, match="connected are: f1"):
        cluster.drain(FakeNode(newer()), "f2", 30.0)


def test_times_as_people_write_them():
    assert [seconds(text) for text in ("60s", "5m", "1h", "2.5")] == [60, 300, 3600, 2.5]
    for text in ("", "s", "-1s", "soon", "nan", "infs"):
        with pytest.raises(Refused, match="is no time"):
            seconds(text)


def test_a_frontend_that_is_away_is_listed_with_what_it_holds():
    view = {"backend": {"version": "test"}, "frontends": [], "away": [{"id": "f2", "held": 7}]}
    console = Console(width=120, record=True, file=StringIO())
    console.print(frontends(view))
    assert console.export_text().splitlines()[1].split() == ["f2", "away", "7", "held"]
