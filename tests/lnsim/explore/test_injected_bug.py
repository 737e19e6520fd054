"""A bug that is put in on purpose is found by exploring, made small, and told with the line that shows it again."""

import re
from contextlib import contextmanager

from typer.testing import CliRunner

from lnsim.cli import app
from lnsim.scenario import workloads as wl
from lnsim.scenario.load import load
from node.backend.journal import Journal

SEEDS = 40  # of which a handful find it


def send_at_once(journal, output):
    output()


@contextmanager
def a_journal_that_sends_before_it_stores():
    """A message leaves while what it says is on its way to the disk: killed then, the peer knows what we forgot."""
    right = Journal.send
    Journal.send = send_at_once
    try:
        yield
    finally:
        Journal.send = right


def test_sending_before_storing_is_found_and_made_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    with a_journal_that_sends_before_it_stores():
        told = runner.invoke(app, ["explore", "--seeds", str(SEEDS), "--jobs", "1"])
        line = re.search(r"reproduce with: lnsim (run (\S+) --world --seed \d+)", told.output)
        again = runner.invoke(app, line[1].split())
    assert (told.exit_code, again.exit_code) == (1, 1)
    assert "no longer open" in again.output or "msat" in again.output
    small = load(tmp_path / line[2])
    assert len(small.workloads) <= 3
    assert any(isinstance(each, wl.Kill | wl.Restart | wl.Pause) for each in small.workloads)
    held = runner.invoke(app, line[1].split())
    assert held.exit_code == 0  # it was the bug, and nothing else
