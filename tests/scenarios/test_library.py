"""Every scenario of the library keeps what it claims, in each mode in which it makes sense."""

import subprocess
import sys
from pathlib import Path

import pytest

from lnsim.scenario.load import load

LIBRARY = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
RUNS = [(path, mode) for path in LIBRARY for mode in load(path).modes]
TIMEOUT_S = 600


@pytest.mark.scenarios
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize(("path", "mode"), RUNS, ids=[f"{path.stem}-{mode}" for path, mode in RUNS])
def test_a_scenario_keeps_what_it_claims(path, mode):
    run(path, mode)


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["cluster", "world"])
def test_the_smoke_scenario_holds(mode, tmp_path):
    (smoke,) = (path for path in LIBRARY if path.stem == "smoke")
    run(smoke, mode, "--report", str(tmp_path))
    assert "<html" in (tmp_path / "report.html").read_text()


def run(path, mode, *more):
    argv = [
        sys.executable,
        "-m",
        "lnsim.cli",
        "run",
        str(path),
        *(["--world"] if mode == "world" else []),
        *more,
    ]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    print(done.stdout[-4_000:], done.stderr[-4_000:])
    assert done.returncode == 0


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_a_scenario_says_what_it_claims(path):
    scenario = load(path)
    assert scenario.claim.endswith(".")
    assert "\n" not in scenario.claim
    assert f"`{path.name}`" in (path.parent / "README.md").read_text()
