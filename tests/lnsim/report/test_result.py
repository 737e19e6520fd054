import msgspec
import pytest
from example_run import example_run

from lnsim.report import directory
from lnsim.report.quantity import Direction, direction, told
from lnsim.report.result import Check, RunResult
from node.errors import Refused


def test_a_run_comes_back_from_its_directory_as_it_was(tmp_path):
    run = example_run()
    page = directory.write(run, tmp_path / "new" / "run")
    assert page.name == "report.html"
    assert directory.read(tmp_path / "new" / "run") == run
    assert directory.read(tmp_path / "new" / "run" / "result.json") == run


def test_a_run_holds_only_as_a_whole():
    assert example_run().holds
    assert not example_run(expectations=[Check("reconnect.p99_s < 5", False, 9.0)]).holds
    assert not example_run(invariants=[Check("graphs agree", False)]).holds
    assert not example_run(complaints=["a process was left behind"]).holds


def test_a_directory_without_a_result_is_refused_with_the_way_to_get_one(tmp_path):
    with pytest.raises(Refused, match=r"result.json: No such file or directory; write one with .*--report"):
        directory.read(tmp_path)


def test_a_wrong_field_is_named(tmp_path):
    plain = msgspec.to_builtins(example_run(), str_keys=True)
    plain["metrics"]["payments.settled"] = "many"
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(plain))
    with pytest.raises(
        Refused, match=r"result.json: Expected `float`, got `str` - at `\$.metrics\[...\]`; .* run"
    ):
        directory.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"payments: 3", b"\xff\xfe{}", b"[]", b'{"name": "x"}'])
def test_another_file_is_no_result(tmp_path, content):
    (tmp_path / "other.json").write_bytes(content)
    with pytest.raises(Refused, match=r"other.json: .*no result that this lnsim wrote"):
        directory.read(tmp_path / "other.json")


def test_a_series_has_a_value_for_each_time(tmp_path):
    plain = msgspec.to_builtins(example_run(), str_keys=True)
    plain["series"]["f1.sessions"]["times"].pop()
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(plain))
    with pytest.raises(Refused, match=r"series.f1.sessions has 59 times for 60 values"):
        directory.read(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"file.result.json: cannot be written .*another directory"):
        directory.write(example_run(), tmp_path / "file")


def test_an_empty_run_is_a_result_too(tmp_path):
    run = RunResult(
        name="x", claim="", mode="world", seed=1, command="lnsim", started="", duration_s=0.0, wall_s=0.0
    )
    directory.write(run, tmp_path)
    assert directory.read(tmp_path) == run
    assert run.holds


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("payments.settled", 10835.0, "10,835"),
        ("payments.success_ratio", 0.9952, "99.52 %"),
        ("payments.p99_s", 0.4408, "441 ms"),
        ("payments.p99_s.max", 1.4, "1.4 s"),
        ("ping.p50_s", 0.00025, "250 µs"),
        ("sync.max_s", 900.0, "15 min"),
        ("frontend.rss_mb.max", 51.87, "51.9 MB"),
        ("f1.bytes_out_per_s.mean", 81_240.0, "81.2 kB/s"),
        ("f1.link_delay_ms.mean", 1.466, "1.47 ms"),
        ("payments.failed_per_s.mean", 0.8666, "0.867/s"),
        ("reconnect.p50_s", 0.0, "0 s"),
    ],
)
def test_a_figure_is_told_with_its_unit(metric, value, words):
    assert told(metric, value) == words


@pytest.mark.parametrize(
    ("metric", "way"),
    [
        ("payments.success_ratio", Direction.UP),
        ("payments.settled_per_s.mean", Direction.UP),
        ("swarm.idle.connected.min", Direction.UP),
        ("payments.failed", Direction.DOWN),
        ("frontend.rss_mb.max", Direction.DOWN),
        ("reconnect.p99_s", Direction.DOWN),
        ("payments.p99_s.max", Direction.DOWN),
        ("backend.cpu_share.mean", Direction.DOWN),
        ("chain.height.max", Direction.NEITHER),
        ("reconnect.count", Direction.NEITHER),
    ],
)
def test_which_way_is_good_is_known_or_said_to_be_unknown(metric, way):
    assert direction(metric) is way
