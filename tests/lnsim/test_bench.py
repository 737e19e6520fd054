"""Each benchmark runs, in small, and yields its figures. No figure is judged here: that would test the machine."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner

from lnsim.bench import table
from lnsim.bench.command import _show, app
from lnsim.bench.measure import MIN_ROUNDS, Timed, compare, percentile
from lnsim.bench.plan import Plan
from lnsim.bench.registry import BENCHMARKS, Goal
from lnsim.cluster_process import command
from node.errors import Refused

RATIO = {"limit_per_s", "ratio"}
KEYS = {
    "handshakes": {"per_s", *RATIO},
    "transport": {"messages_per_s", "mb_per_s", *RATIO},
    "gossip_verify": {"messages_per_s", *RATIO},
    "graph_load": {"s", "rss_mb"},
    "graph_dump": {"messages_per_s", "mb_per_s"},
    "link": {"messages_per_s"},
    "idle_peer": {"kib"},
    "route": {"p50_ms", "p99_ms"},
}
FORWARD_KEYS = {"settled_per_s", "p50_ms", "p99_ms", "backend_cpu_ms", "fsyncs"}
IN_PROCESS = ("handshakes", "transport", "gossip_verify", "route")
WITH_PROCESSES = ("graph_load", "graph_dump", "link", "idle_peer")


@pytest.fixture
def plan():
    """As little as possible, in a short path: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        yield Plan(
            directory=Path(directory),
            seconds=0.05,
            channels=200,
            nodes=60,
            signed_channels=20,
            idle_peers=5,
            routes=10,
            in_flight=(1, 3),
        )


def check(name, figures):
    assert figures.keys() == KEYS[name]
    for key, value in figures.items():
        assert value > 0 or key == "kib"  # a handful of peers fits into memory that is there already


@pytest.mark.parametrize(("names", "told"), [(("transport", "link"), False), (("link", "route"), True)])
def test_a_smaller_graph_is_told_where_it_is_used(plan, capsys, names, told):
    _show({name: dict.fromkeys(KEYS[name], 1.0) for name in names}, plan)
    assert ("A graph of 200 channels" in capsys.readouterr().out) == told


@pytest.mark.parametrize("name", IN_PROCESS)
def test_benchmark_in_this_process(plan, name):
    check(name, BENCHMARKS[name].run(plan))


def test_the_store_on_both_databases(plan, postgres):
    pytest.importorskip("psycopg")
    url = postgres.database()
    figures = BENCHMARKS["store"].run(replace(plan, database=url))
    rates = {"commits_per_s", "updates_per_s"}
    assert {name: set(found) for name, found in figures.items()} == {
        "disk": {"syncs_per_s"},
        "sqlite": rates,
        "postgresql": rates,
    }
    assert all(value > 0 for found in figures.values() for value in found.values())


def test_a_nodes_own_database_is_not_written_to(plan, postgres):
    pytest.importorskip("psycopg")
    url = postgres.database()
    BENCHMARKS["store"].run(replace(plan, database=url))
    postgres.execute("INSERT INTO meta VALUES ('node_id', '')", url)
    (plan.directory / "store").rename(plan.directory / "first")
    with pytest.raises(Refused, match="make an empty one"):
        BENCHMARKS["store"].run(replace(plan, database=url))


@pytest.mark.e2e
@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_benchmark_with_processes(plan, name):
    check(name, BENCHMARKS[name].run(plan))


@pytest.mark.e2e
def test_forwards(plan):
    figures = BENCHMARKS["forwards"].run(plan)
    assert figures.keys() == {"1", "3"}
    for found in figures.values():
        assert found.keys() == FORWARD_KEYS
        assert all(value > 0 for key, value in found.items() if key != "backend_cpu_ms")


@pytest.mark.e2e
def test_tls_against_unix_sockets(plan):
    figures = BENCHMARKS["tls"].run(replace(plan, seconds=0.5))
    assert figures.keys() == {"unix_cpu_ms", "tls_cpu_ms", "ratio"}
    assert all(value > 0 for value in figures.values())


def test_every_benchmark_is_tested():
    assert BENCHMARKS.keys() == {*KEYS, "forwards", "store", "tls"}


def test_json_is_the_last_line():
    result = CliRunner().invoke(app, ["transport", "--json", "--quick", "--seconds", "0.05"])
    assert result.exit_code == 0
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures.keys() == {"transport"}
    check("transport", figures["transport"])


def test_people_get_a_table():
    result = CliRunner().invoke(app, ["transport", "--seconds", "0.05"])
    assert result.exit_code == 0
    assert "250,000" in result.stdout


def test_an_unknown_name_is_refused():
    result = CliRunner().invoke(app, ["transprot"])
    assert result.exit_code == 2
    assert "no benchmark 'transprot'" in result.stderr


@pytest.mark.e2e
def test_as_a_command():
    done = subprocess.run(
        [*command("lnsim"), "bench", "route", "--quick", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]).keys() == {"route"}


def test_rounds_alternate_and_the_median_decides():
    calls = []

    def round_of(name, seconds):
        def run():
            calls.append(name)
            return Timed(10, next(seconds))

        return run

    slow_once = iter([1.0, 1.0, 9.0, *[1.0] * 99])
    result = compare(round_of("ours", slow_once), round_of("limit", iter([0.5] * 99)), seconds=0.0)
    assert (result.per_s, result.limit_per_s, result.ratio) == (10, 20, 0.5)
    assert calls[2:6] == ["ours", "limit", "limit", "ours"]
    assert len(calls) == 2 + 2 * MIN_ROUNDS


def test_percentile():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(100), 0.99) == 99


def test_goals_show_in_the_table():
    assert Goal(("s",), at_most=3.0).met(2.9)
    assert not Goal(("ratio",), at_least=0.7).met(0.69)
    result = table.table()
    table.add(result, BENCHMARKS["graph_load"], {"s": 1.25, "rss_mb": 180.0})
    console = Console(record=True, width=100)
    console.print(result)
    text = console.export_text()
    assert "1.25" in text
    assert "<= 3" in text
