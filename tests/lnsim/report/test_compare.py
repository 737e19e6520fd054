import pytest
import typer
from example_run import example_run
from rich.console import Console
from test_page import data_of, without_plotly
from typer.testing import CliRunner

from lnsim.report import command, compare_page, compare_table, directory
from lnsim.report.compare import Difference, compare, notable
from lnsim.report.compare_table import sign


def by_metric(one, two):
    return {each.metric: each for each in compare(one, two).differences}


def test_a_change_is_judged_by_its_direction():
    found = by_metric(
        example_run(
            metrics={"payments.settled": 100.0, "payments.p99_s": 1.0, "chain.height.max": 5.0, "old": 1.0}
        ),
        example_run(
            metrics={"payments.settled": 150.0, "payments.p99_s": 2.0, "chain.height.max": 9.0, "new": 1.0}
        ),
    )
    assert found["payments.settled"] == Difference("payments.settled", 100.0, 150.0, 0.5, "better")
    assert found["payments.p99_s"] == Difference("payments.p99_s", 1.0, 2.0, 1.0, "worse")
    assert found["chain.height.max"].judgement == "other"
    assert (sign(found["new"]), sign(found["old"])) == ("new", "gone")


@pytest.mark.parametrize(
    ("one", "two", "words", "judgement"),
    [
        (1.0, 1.02, "+2.0 %", "same"),
        (1.0, 0.5, "-50.0 %", "better"),
        (0.1, 0.5, "5 times", "worse"),
        (0.0, 0.0, "=", "same"),
        (0.0, 0.5, "from 0", "worse"),
    ],
)
def test_a_change_in_words(one, two, words, judgement):
    found = by_metric(
        example_run(metrics={"reconnect.p99_s": one}), example_run(metrics={"reconnect.p99_s": two})
    )["reconnect.p99_s"]
    assert (sign(found), found.judgement) == (words, judgement)


def test_what_was_not_the_same_is_named():
    other = example_run(
        5, versions={"lnsim": "0.2.0"}, machine={"processors": "8"}, name="smoke", mode="world"
    )
    named = {each.what: (each.one, each.two) for each in compare(example_run(), other).conditions}
    assert named["seed"] == ("4711", "5")
    assert named["scenario"] == ("frontend_churn", "smoke")
    assert named["mode"] == ("cluster", "world")
    assert named["version of lnsim"] == ("0.1.0", "0.2.0")
    assert named["version of commit"] == ("4be1f0c", "unknown")
    assert named["machine: processors"] == ("2", "8")
    assert compare(example_run(), example_run()).conditions == []


def test_expectations_come_first_then_the_largest_changes():
    told = notable(compare(example_run(), example_run(7, slower=2.0)))
    named = [check.text.split()[0] for check in example_run().expectations]
    assert sorted(each.metric for each in told[:4]) == sorted(named)
    changes = [abs(each.change) for each in told[4:]]
    assert changes == sorted(changes, reverse=True)
    assert len({each.metric for each in told}) == len(told)


def test_the_page_has_both_runs_over_each_other():
    page = without_plotly(compare_page.render(compare(example_run(), example_run(7, slower=2.0))))
    panels = data_of(page)["panels"]
    assert {trace["name"] for trace in panels[0]["traces"]} == {"first", "second"}
    assert "Payments a second: settled" in page
    assert 'class="worse"' in page
    assert "--seed 4711" in page
    assert "--seed 7" in page


def test_a_series_of_one_run_only_stands_alone():
    two = example_run(series={}, histograms={}, marks=[], metrics={})
    data = data_of(without_plotly(compare_page.render(compare(example_run(), two))))
    assert [trace["name"] for trace in data["panels"][0]["traces"]] == ["first"]
    assert data["marks"][0]["text"] == "first: kill f1"


def test_the_table_fits_a_terminal():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(compare_table.render(compare(example_run(), example_run(7, slower=2.0))))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("payments.p99_s" in line and "%" in line for line in lines)
    assert len(lines) < 50


@pytest.fixture
def cli():
    app = typer.Typer()
    app.command()(command.compare)
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command_compares_directories_and_files(cli, tmp_path):
    directory.write(example_run(), tmp_path / "a")
    directory.write(example_run(7), tmp_path / "b")
    answer = cli(tmp_path / "a", tmp_path / "b" / "result.json", "--report", tmp_path / "c")
    assert answer.exit_code == 0, answer.output
    assert "payments.p99_s" in answer.output
    assert (tmp_path / "c" / "compare.html").read_text().startswith("<!doctype html>")


def test_the_command_ends_with_two_for_a_wrong_file(cli, tmp_path):
    directory.write(example_run(), tmp_path / "a")
    answer = cli(tmp_path / "a", tmp_path / "missing")
    assert answer.exit_code == 2
    assert "missing: No such file or directory; write one with" in answer.output
    assert "Traceback" not in answer.output
