"""Hosts on one machine: network namespaces, each with its cable to a switch, so that real software meets a real network.

A cable can be pulled, made slow and lossy, or made to lose what goes to one address. Everything has this process's
number in its name; `Lan.close` ends what was started and deletes it all. `python hosts.py` opens one for you.
"""

import contextlib
import ctypes
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

CLONE_NEWNET = 0x40000000
NOWHERE = "02:00:00:00:00:01"  # nobody's: what is sent there is lost without a word
SLOW_CABLE = Path(__file__).with_name("slow_cable.py")
NETMASK_BITS = 24
END_S = 10
SWITCH, BRIDGE = "switch", "lan0"
T = TypeVar("T")

_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class Impossible(Exception):  # noqa: N818 - a fact about this machine, told to whoever runs the tests
    """What this machine lacks for hosts of its own."""


class Host:
    """A namespace with the interface eth0 and one address or several."""

    def __init__(self, lan: "Lan", name: str, addresses: tuple[str, ...]) -> None:
        self.name, self.addresses = name, addresses
        self.namespace = f"{lan.prefix}-{name}"
        self.shaped_by = ""  # what makes its cable slow, for as long as it is
        self._lan = lan
        self._delays: subprocess.Popen | None = None
        self._link = BRIDGE

    @property
    def address(self) -> str:
        return self.addresses[0]

    # what runs on it

    def command(self, *argv: object, user: str = "") -> list[str]:
        """To be started by whatever means: runs on this host, and dies with the thread that started it."""
        became = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
        inside = ["ip", "netns", "exec", self.namespace]
        return [*inside, "setpriv", "--pdeathsig", "KILL", *became, "--", *map(str, argv)]

    def run(self, *argv: object, check: bool = True, **options) -> subprocess.CompletedProcess:
        """A command to its end; what it said is in stdout, both streams together."""
        done = subprocess.run(
            self.command(*argv),
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            **options,
        )
        assert done.returncode == 0 or not check, f"{self.name}: {shlex.join(map(str, argv))}: {done.stdout}"
        return done

    def popen(self, *argv: object, log: Path, user: str = "", **options) -> subprocess.Popen:
        """A process in a group of its own, ended with the network at the latest."""
        with log.open("ab") as out:
            command = self.command(*argv, user=user)
            started = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
        self._lan.processes.append(started)
        return started

    def here(self, work: Callable[[], T]) -> T:
        """Do it with the sockets of this host, in a thread of its own: a namespace is a thread's."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/run/netns/{self.namespace}") as place:  # noqa: PTH123 - its number is wanted
                    assert _libc.setns(place.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again, by whoever asked
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"on {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    # its cable

    def cut(self) -> None:
        """Pull the cable at the switch: the host sees nothing of it, no packet comes through, no connection ends."""
        self._lan.switch("ip", "link", "set", "dev", self.name, "nomaster")

    def heal(self) -> None:
        self._lan.switch("ip", "link", "set", "dev", self.name, "master", self._link)

    def lose(self, address: str) -> None:
        """What this host sends to that one address is lost on the way."""
        self._ip("neigh", "replace", address, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def find(self, address: str) -> None:
        self._ip("neigh", "del", address, "dev", "eth0")

    def delay(self, one_way_ms: float, loss_percent: float) -> None:
        """In both directions, until `hasten`: by tc's netem, or where the kernel has none by our own slow cable."""
        shape = ("root", "netem", "delay", f"{one_way_ms:g}ms", "loss", f"{loss_percent:g}%")
        if netem_refused() is None:
            self.run("tc", "qdisc", "add", "dev", "eth0", *shape)
            self._lan.switch("tc", "qdisc", "add", "dev", self.name, *shape)
            self.shaped_by = "tc netem"
            return
        self._link, ends = f"{self.name}-slow", (f"{self.name}-a", f"{self.name}-b")
        self._lan.switch("ip", "link", "add", "name", self._link, "type", "bridge")
        self._lan.switch("ip", "link", "set", "dev", self._link, "up")
        self._delays = self._lan.started_on_switch(
            sys.executable, SLOW_CABLE, *ends, one_way_ms, loss_percent
        )
        for end, bridge in zip(ends, (self._link, BRIDGE), strict=True):
            self._lan.switch("ip", "link", "set", "dev", end, "master", bridge, "up")
        self.heal()
        self.shaped_by = "slow_cable.py"

    def hasten(self) -> None:
        """The cable is as fast as it was."""
        if self.shaped_by == "tc netem":
            self.run("tc", "qdisc", "del", "dev", "eth0", "root")
            self._lan.switch("tc", "qdisc", "del", "dev", self.name, "root")
        if self._delays is not None:
            self._link, slow = BRIDGE, self._link
            self.heal()
            end(self._delays)
            self._delays = None
            self._lan.switch("ip", "link", "del", slow)
        self.shaped_by = ""

    def plug_in(self) -> None:
        """Make namespace, cable and addresses."""
        ip("netns", "add", self.namespace)
        switch = f"{self._lan.prefix}-{SWITCH}"
        ends = ("name", "eth0", "netns", self.namespace), ("name", self.name, "netns", switch)
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for address in self.addresses:
            self._ip("address", "add", f"{address}/{NETMASK_BITS}", "dev", "eth0")
        self._ip("link", "set", "lo", "up")
        self._ip("link", "set", "eth0", "up")
        self._lan.switch("ip", "link", "set", "dev", self.name, "master", BRIDGE, "up")

    def _ip(self, *argv: str) -> None:
        ip("-n", self.namespace, *argv)


class Lan:
    """`with Lan() as lan: b = lan.host("b", "10.0.0.11")`. Raises Impossible where this machine has no such things."""

    def __init__(self) -> None:
        self.prefix = f"lnlan{os.getpid()}-{next(_numbers)}"
        self.hosts: dict[str, Host] = {}
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> Self:
        if (why := lacking()) is not None:
            raise Impossible(why)
        ip("netns", "add", f"{self.prefix}-{SWITCH}")
        try:
            self.switch("ip", "link", "add", "name", BRIDGE, "type", "bridge")
            self.switch("ip", "link", "set", BRIDGE, "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def host(self, name: str, *addresses: str) -> Host:
        made = self.hosts[name] = Host(self, name, addresses)
        made.plug_in()
        return made

    def switch(self, *argv: object) -> None:
        command(*self._on_switch(*argv))

    def started_on_switch(self, *argv: object) -> subprocess.Popen:
        """Returns once it has said its first line."""
        argv = ("setpriv", "--pdeathsig", "KILL", "--", *argv)
        started = subprocess.Popen(
            self._on_switch(*argv), stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        self.processes.append(started)
        assert started.stdout is not None, "asked for"
        assert started.stdout.readline(), f"{argv}: ended"
        return started

    def _on_switch(self, *argv: object) -> list[str]:
        return ["ip", "netns", "exec", f"{self.prefix}-{SWITCH}", *map(str, argv)]

    def close(self) -> None:
        """End what was started here and what that has started, last come first; then delete the namespaces."""
        for process in reversed(self.processes):
            end(process)
        for name in (*(host.namespace for host in self.hosts.values()), f"{self.prefix}-{SWITCH}"):
            if not Path(f"/run/netns/{name}").exists():
                continue
            left = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
            for number in left.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
            ip("netns", "delete", name)


def end(process: subprocess.Popen) -> int:
    """Ask it to end, insist after a while; its status."""
    process.terminate()
    try:
        status = process.wait(END_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return status


def lacking() -> str | None:
    """What is not there, and how to get it."""
    if os.getuid() != 0:
        return "hosts are network namespaces, and only root makes them: run this as root"
    missing = [name for name in ("ip", "tc", "setpriv") if shutil.which(name) is None]
    return f"{', '.join(missing)} missing: apt-get install iproute2 util-linux" if missing else None


def give_up(why: str) -> None:
    """Of tests that need hosts: a user's run skips with the reason, CI fails."""
    import pytest

    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"cluster: {why}")


def netem_refused() -> str | None:
    """Why tc can't delay and lose packets on this machine; None where it can."""
    with probe() as name:
        asked = ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms", "loss", "1%"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()


@contextlib.contextmanager
def probe() -> Iterator[str]:
    """A namespace for as long as something is tried in it."""
    name = f"lnlan{os.getpid()}-probe"
    ip("netns", "add", name)
    try:
        yield name
    finally:
        ip("netns", "delete", name)


def ip(*argv: str) -> None:
    command("ip", *argv)


def command(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(argv)}: {done.stderr.strip()}")


def main(wanted: list[str]) -> None:
    """`hosts.py b=10.0.0.11 d=10.0.0.21,10.0.0.22`: there until Ctrl-C."""
    if not wanted:
        sys.exit("usage: python hosts.py NAME=ADDRESS[,ADDRESS...] ...")
    try:
        with Lan() as lan:
            for each in wanted:
                name, _, addresses = each.partition("=")
                made = lan.host(name, *addresses.split(","))
                print(f"{name}: ip netns exec {made.namespace} bash", flush=True)
            signal.pause()
    except Impossible as why:
        sys.exit(f"hosts.py: {why}")
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
