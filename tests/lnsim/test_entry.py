"""Ctrl-C while `lnsim` still loads its modules: the longest import is replaced by one that waits for it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STOPPED = "lnsim: stopped before the first payment\n"
RUN = "import sys; from lnsim.entry import main; sys.argv[0] = 'lnsim'; main()"
SLOW_IMPORT = "import signal\nprint('loading', flush=True)\nwhile True:\n    signal.pause()\n"


@pytest.mark.parametrize(
    ("arguments", "told"), [(["demo", "--for", "5s"], STOPPED), (["demo", "kill"], ""), (["chain"], "")]
)
def test_ctrl_c_while_it_loads(arguments: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(SLOW_IMPORT)
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {RUN}"
    lnsim = subprocess.Popen(
        [sys.executable, "-c", path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert lnsim.stdout is not None
    assert lnsim.stdout.readline() == "loading\n"
    lnsim.send_signal(signal.SIGINT)
    _, error = lnsim.communicate(timeout=30)
    assert (lnsim.returncode, error) == (130, told)
