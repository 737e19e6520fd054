"""Real processes: start, wait until ready, measure, kill, restart, and leave none behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec import Struct

READY_TIMEOUT_S = 60.0  # a cold start of everything on a loaded machine
STOP_GRACE_S = 5.0  # from SIGTERM to SIGKILL
POLL_S = 0.05
RESTART_PAUSE_S = 1.5  # what a service manager waits, long enough to see the gap
MAX_QUICK_EXITS = 5  # a process that ends this often without getting ready is given up
MAX_LINE_BYTES = 16 << 20  # the results of a long load run travel as one line
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LOG_TAIL_CHARACTERS = 2_000

Ready = dict[str, Any]


class ProcessFailed(Exception):  # noqa: N818 - a fact about another process
    """A process that was asked for did not come up."""


class Usage(Struct, frozen=True):
    """What a process took so far, all its incarnations together; memory is that of the present one."""

    cpu_s: float = 0.0
    rss_mb: float = 0.0


def command(name: str) -> list[str]:
    """How to run a command of this distribution with this interpreter."""
    script = Path(sysconfig.get_path("scripts")) / name
    if script.exists():
        return [sys.executable, str(script)]
    module = {"lnsim": "lnsim.cli", "lnnode": "node.cli"}[name]
    return [sys.executable, "-c", f"from {module} import main; main()"]


class Child:
    """One process that we started. Its first line on stdout says that it is ready."""

    def __init__(self, name: str, argv: Sequence[str], directory: Path) -> None:
        self.name = name
        self.on_line: Callable[[bytes], None] | None = None
        self.on_exit: list[Callable[[Child, int], None]] = []  # with its status; `stopping`: it was asked to
        self.ready: Ready = {}
        self.stopping = False
        self.restarts = 0
        self.is_up = False  # ready, and not ended since
        self._argv = list(argv)
        self._log = directory / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._measured: psutil.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._usage = Usage()
        self._past_cpu_s = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> Ready:
        """Start it and wait for its ready line. Raises ProcessFailed with the tail of its log."""
        spawning = asyncio.ensure_future(self._spawn())
        try:
            self._process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            self._process = await spawning  # it is there all the same, and `stop` has to know it
            raise
        with contextlib.suppress(psutil.NoSuchProcess):
            self._measured = psutil.Process(self._process.pid)
        came_up: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._follow(self._process, came_up), name=f"watch {self.name}")
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                self.ready = await came_up
                self.is_up = self.pid is not None
        except TimeoutError as error:
            raise ProcessFailed(f"{self.name} is not ready after {READY_TIMEOUT_S:g} s") from error
        return self.ready

    async def _spawn(self) -> asyncio.subprocess.Process:
        parent = os.getpid()
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for us: we stop them in order
                preexec_fn=lambda: _die_with(parent),
            )

    def write(self, line: bytes) -> None:
        """Send a line to its stdin; a process that is gone reads nothing."""
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(line + b"\n")

    def usage(self) -> Usage:
        """CPU time and memory, up to now or to its end."""
        if self._measured is not None:
            with contextlib.suppress(psutil.Error):
                with self._measured.oneshot():
                    times = self._measured.cpu_times()
                    rss_mb = self._measured.memory_info().rss / 1e6
                if rss_mb:  # zero once it is a zombie
                    self._usage = Usage(self._past_cpu_s + times.user + times.system, rss_mb)
        return self._usage

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.usage()
        self.is_up = False
        self._signal(signal.SIGKILL)

    async def pause(self, for_s: float) -> None:
        """Let it stand still for so long, whoever waits for it."""
        process = self._process
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            if self._process is process:
                self._signal(signal.SIGCONT)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when it is gone."""
        self.stopping = True
        self.is_up = False
        if self._process is None:
            return
        self.usage()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        if self._watch is not None:
            await self._watch

    def log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        return ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _follow(self, process: asyncio.subprocess.Process, came_up: asyncio.Future[Ready]) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if not came_up.done():
                self._first_line(line, came_up)
            elif self.on_line is not None:
                self.on_line(line)
        status = await process.wait()
        self.is_up = False
        self._past_cpu_s = self._usage.cpu_s
        if not came_up.done():
            came_up.set_exception(
                ProcessFailed(
                    f"{self.name} ended with status {status} before it was ready\n{self.log_tail()}"
                )
            )
        else:
            for told in self.on_exit:
                told(self, status)

    def _first_line(self, line: bytes, came_up: asyncio.Future[Ready]) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            came_up.set_result(msgspec.json.decode(line, type=Ready))


def _die_with(parent: int) -> None:
    """In the child, before exec: the kernel ends it when we end, however we end."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we ended in between
            os._exit(1)


class Supervisor:
    """Keeps processes running: restarts those that should be up, and ends all of them at the end."""

    def __init__(self, directory: Path, report: Callable[[str, str], None]) -> None:
        self.children: dict[str, Child] = {}
        self.given_up: list[str] = []
        self._directory = directory
        self._report = report  # (kind, text): what a person should see
        self._restarts: set[asyncio.Task[None]] = set()
        self._every_pid: list[psutil.Process] = []
        self._others = set(psutil.Process().children(recursive=True))  # there before us: not ours to end

    async def start(self, name: str, argv: Sequence[str], *, restart: bool = False) -> Child:
        child = self.children[name] = Child(name, argv, self._directory)
        child.on_exit.append(self._restart if restart else self._lost)
        await child.start()
        self._remember(child)
        return child

    async def restart(self, name: str) -> None:
        """Stop one in order and start it again; returns when it is ready. Raises ProcessFailed if it does not come up."""
        child = self.children[name]
        if child.is_up:  # else it was killed, and somebody is starting it already
            await child.stop()
            child.stopping = False
            await self._bring_up(child, pause_s=0.0)
        while not child.is_up:
            if name in self.given_up:
                raise ProcessFailed(f"{name} did not come up again")
            await asyncio.sleep(POLL_S)

    async def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop these, or all; frontends before the backend before the chain: the last started goes first."""
        chosen = [self.children[name] for name in (names if names is not None else list(self.children))]
        for child in chosen:
            child.stopping = True
        if names is None:
            for task in self._restarts:
                task.cancel()
            await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in chosen))

    def left_over(self) -> int:
        """How many processes of ours, or children of theirs, are still there."""
        own = [p for p in self._every_pid if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        below = set(psutil.Process().children(recursive=True)) - self._others
        return len({p.pid for p in (*own, *below)})

    def _remember(self, child: Child) -> None:
        if child.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._every_pid.append(psutil.Process(child.pid))

    def _lost(self, child: Child, status: int) -> None:
        if child.stopping:
            return
        self.given_up.append(child.name)
        self._report("bad", f"{child.name} ended with status {status}")

    def _restart(self, child: Child, status: int) -> None:
        if child.stopping:
            return
        if status != -signal.SIGKILL:
            self._report("bad", f"{child.name} ended with status {status}")
        task = asyncio.create_task(self._bring_up(child, RESTART_PAUSE_S), name=f"restart {child.name}")
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _bring_up(self, child: Child, pause_s: float) -> None:
        for _ in range(MAX_QUICK_EXITS):
            await asyncio.sleep(pause_s)
            pause_s = RESTART_PAUSE_S
            child.restarts += 1
            try:
                await child.start()
            except ProcessFailed as failure:
                self._report("bad", str(failure).splitlines()[0])
                continue
            self._remember(child)
            self._report("good", f"{child.name} up again, pid {child.pid}")
            return
        self.given_up.append(child.name)
        self._report("bad", f"{child.name} is given up after {MAX_QUICK_EXITS} starts")
