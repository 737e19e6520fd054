"""The private Tor network of a run, for an event loop: what blocks runs in a thread of its own.

One and the same thread for all of it: the kernel ends a tor with the thread that started it (`tor.daemon`).
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psutil

from lnsim.cluster_process import ProcessFailed, Usage
from tor.control import Connection, TorRefused
from tor.errors import Refused as NoTor
from tor.errors import Unavailable
from tor.testnet import RELAYS, TorNetwork

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
DIRECTORIES = RELAYS + 1  # relays that keep a descriptor: all of the network's
CLIENTS = "PURPOSE=HS_SERVICE_REND"  # of a circuit that a client of the service has joined
ESTABLISHED = " SUCCEEDED "  # of a stream that has come through
BOOTSTRAP_S = 30.0


class Tors:
    """Mutable. `start`, use, `stop`; nothing is left of it, and nothing of it leaves the machine's loopback."""

    def __init__(self) -> None:
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tor")
        self._network: TorNetwork | None = None
        self.up = False
        self._ended = False

    @property
    def network(self) -> TorNetwork:
        assert self._network is not None, "started"
        return self._network

    @property
    def socks(self) -> str:
        """Where clients come in."""
        return f"{LOOPBACK}:{self.network.socks_port}"

    @property
    def control(self) -> str:
        """Where the service's tor takes commands."""
        return f"unix:{self.network.service.control_socket}"

    def bootstrapped(self) -> int:
        """How far the service's tor says to have come, in percent."""
        return self.network.service.bootstrapped() if self.up else 0

    async def start(self) -> None:
        """The whole network, in some ten seconds. Raises ProcessFailed."""
        try:
            await self._start()
        except (
            ProcessFailed
        ):  # on a loopback that is shared, a port that was free may be taken a moment later
            if self._ended:
                raise
            await self._start()
        self.up = True

    async def _start(self) -> None:
        # no namespace: the frontends and peers to reach are on the machine's loopback
        self._network = TorNetwork(namespace=False)
        await self._do(self._network.__enter__)

    async def stop(self) -> None:
        """Also in the middle of `start`."""
        self._ended = True
        if self._network is not None:
            self.up = False
            network = self._network
            await asyncio.to_thread(network.stop)  # a start that waits for one of them gives up
            with contextlib.suppress(ProcessFailed, OSError):
                await self._do(network.stop)
        self._lane.shutdown(wait=False)

    async def end(self) -> None:
        await self._do(self.network.service.stop)

    async def kill(self) -> None:
        service = self.network.service
        service.signal(signal.SIGKILL)
        await self._do(service.stop)  # which waits until it is gone

    async def begin(self) -> None:
        """Returns once it is up. Raises ProcessFailed."""
        service = self.network.service
        await self._do(service.start)
        await self._do(lambda: service.wait_bootstrapped(100, BOOTSTRAP_S))

    async def close_circuits(self) -> int:
        """All circuits of the service's clients; how many there were."""

        def work() -> int:
            with self.network.service.control() as control:
                lines = control.get_info("circuit-status").splitlines()
                found = [line.split()[0] for line in lines if CLIENTS in line]
                return sum(_closed(control, each) for each in found)

        return await self._do(work)

    async def streams(self) -> int:
        """Connections that clients have through the service."""

        def work() -> int:
            with self.network.client.control() as control:
                lines = control.get_info("stream-status").splitlines()
                return sum(ESTABLISHED in line for line in lines)

        return await self._do(work)

    async def forget(self) -> None:
        """The clients' tor asks for descriptors anew, and uses new circuits for new connections.

        Without that, whoever asked while the service was away would not ask again for a quarter of an hour. tor does it at
        most once in ten seconds, and later where it is told earlier.
        """

        def work() -> None:
            with self.network.client.control() as control:
                control.ask("SIGNAL NEWNYM")

        await self._do(work)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._lane, work)
        except (NoTor, Unavailable) as error:
            raise ProcessFailed(str(error)) from error

    def processes(self) -> list["TorProcess"]:
        return [TorProcess(each.pid) for each in self.network.daemons] if self.up else []


class TorProcess:
    """Implements `cluster_gauges.Measured`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @property
    def pid(self) -> int | None:
        return self._pid if psutil.pid_exists(self._pid) else None

    def usage(self) -> Usage:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._pid)
            times = process.cpu_times()
            return Usage(times.user + times.system, process.memory_info().rss / 1e6)
        return Usage()


def _closed(control: Connection, circuit: str) -> bool:
    """One that has ended meanwhile can't be closed."""
    assert re.fullmatch(r"\d+", circuit), "tor numbers its circuits"
    try:
        control.ask(f"CLOSECIRCUIT {circuit}")
    except TorRefused:
        return False
    return True
