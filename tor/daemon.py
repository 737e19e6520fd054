"""One tor process of a private network: its torrc, its life, its log."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from tor.control import Connection
from tor.errors import Unavailable

POLL_S = 0.03
START_S = 40.0
END_S = 5.0

# Every process of the network, whatever its part.
BASE = """
TestingTorNetwork 1
RunAsDaemon 0
ShutdownWaitLength 0
UseDefaultFallbackDirs 0
OutboundBindAddress 127.0.0.1
PathsNeededToBuildCircuits 0.67
CookieAuthentication 1
"""

Inside = Callable[[], AbstractContextManager[None]]


class Daemon:
    """A tor with a directory of its own. `lines` is what its torrc holds beside what every process has."""

    def __init__(self, name: str, directory: Path, lines: Iterable[str], inside: Inside) -> None:
        self.name = name
        self.directory = directory
        self.control_socket = directory / "control.sock"
        self.cookie_file = directory / "control_auth_cookie"
        self.log = directory / "log"
        self.torrc = directory / "torrc"
        self.lines = tuple(lines)
        self._inside = inside
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        directory.mkdir(mode=0o700, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Returns at once; `wait_bootstrapped` waits. A second call starts it anew on its old directory."""
        empty = self.directory / "empty"
        empty.touch()
        self.torrc.write_text(self._text())
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        command = ["tor", "--defaults-torrc", str(empty), "-f", str(self.torrc), "--quiet"]
        with self._inside():
            self._process = subprocess.Popen(ending_with_us(command), stdin=subprocess.DEVNULL)

    def _text(self) -> str:
        own = (
            f"Nickname {self.name}",
            f"DataDirectory {self.directory}",
            f"ControlSocket {self.control_socket}",
            f"Log notice file {self.log}",
        )
        return "\n".join((BASE.strip(), *own, *self.lines, ""))

    def control(self) -> Connection:
        """An authenticated control connection; the caller closes it. Waits for a tor that is starting."""
        opened: list[Connection] = []

        def answers() -> bool:
            with contextlib.suppress(Unavailable):
                opened.append(Connection(f"unix:{self.control_socket}"))
            return bool(opened)

        self.wait(answers, START_S, "control connection")
        return opened[0]

    def log_text(self) -> str:
        """What this process logged since it was last started."""
        with contextlib.suppress(FileNotFoundError), self.log.open(errors="replace") as log:
            log.seek(self._log_begin)
            return log.read()
        return ""

    def bootstrapped(self) -> int:
        """How far it says to have come, in percent."""
        return max(map(int, re.findall(r"Bootstrapped (\d+)%", self.log_text())), default=0)

    def wait_bootstrapped(self, percent: int, timeout_s: float) -> None:
        self.wait(lambda: self.bootstrapped() >= percent, timeout_s, f"bootstrapped to {percent} %")

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raises Unavailable with the end of the log where it does not happen in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check(what)
            if time.monotonic() > deadline:
                raise self._unavailable(what, f"not within {timeout_s:g} s")
            time.sleep(POLL_S)

    def check(self, what: str) -> None:
        """Raises Unavailable where its process has ended: `what` will never happen."""
        if self._process is not None and self._process.poll() is not None:
            raise self._unavailable(what, "it has ended")

    def _unavailable(self, what: str, why: str) -> Unavailable:
        return Unavailable(f"tor {self.name}: {what}: {why}; its log ends:\n{self.log_text()[-1_500:]}")

    def signal(self, number: signal.Signals) -> None:
        """SIGHUP reads the torrc again, SIGSTOP makes it hang, SIGKILL is an accident."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """End it, whatever its state; nothing is left of the process."""
        if self._process is None:
            return
        for number in (signal.SIGCONT, signal.SIGTERM):
            self._process.send_signal(number)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)


def ending_with_us(command: list[str]) -> list[str]:
    """The command, so that the kernel ends it with the thread that started it, even if that one is killed."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command
