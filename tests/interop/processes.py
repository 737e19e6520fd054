"""Starting the real peers and ending them: one process group each, ended by its id, nothing left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = ROOT / ".peers"
END_S = 5
POLL_S = 0.05
MAX_LINE = 1 << 24  # a graph in one JSON line

WHERE = {
    "ldk": HERE / "ldk/node_modules/lightningdevkit/package.json",
    "noise": HERE / "ldk/node_modules/@node-dlc/noise/package.json",
    "electrum": PEERS / "electrum/usr/bin/electrum",
    "ray": Path(sysconfig.get_path("purelib")) / "ray/__init__.py",
    "pyln": ROOT / ".venv-peers/bin/python",
}


def require(peer: str) -> None:
    """Go on only when this peer is installed: a user's run skips with the reason, CI fails."""
    lacks = None if WHERE[peer].exists() else "it is not installed"
    if peer in ("ldk", "noise") and not shutil.which("node"):
        lacks = "there is no node on this machine"
    if lacks:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"real peer {peer}: {lacks}; run `make peers`")


async def until(condition: Callable[[], Awaitable], timeout_s: float, what: str):
    """The first true value of `condition`, asked again and again; TimeoutError names what did not happen."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not (value := await condition()):
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(POLL_S)
    return value


class Child:
    """One process in a group of its own, with a directory of its own and its stderr in a file there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.log = self.directory / "stderr"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *command: str | Path, stdin: bool = False, **environment: str) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if stdin else log,
                stderr=log,
                limit=MAX_LINE,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def check(self) -> None:
        """Raise with the end of its log when the process has ended by itself."""
        if self.process is None or self.process.returncode is not None:
            raise RuntimeError(f"{self.name} ended by itself: {self.log.read_text()[-2000:]}")

    async def end(self, ask: Callable[[asyncio.subprocess.Process], None]) -> None:
        """Ask it to end, insist after a while, and remove its directory."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                ask(self.process)
            try:
                await asyncio.wait_for(self.process.wait(), END_S)
            except TimeoutError:
                os.killpg(self.process.pid, signal.SIGKILL)
                await self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """kill -9, the group and all."""
        self.check()
        os.killpg(self.process.pid, signal.SIGKILL)
