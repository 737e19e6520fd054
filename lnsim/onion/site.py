"""The onion service of a run: a private Tor network, `lntor` before the frontends, and somebody who watches both."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lnsim.cluster import LOOPBACK, ReservedPort, wait_until
from lnsim.cluster_gauges import Measured
from lnsim.cluster_process import Supervisor
from lnsim.json_lines import Remote
from lnsim.link_proxy import ARGV as PROXY_ARGV
from lnsim.metrics.recorder import Recorder
from lnsim.onion.figures import Outages, Returns
from lnsim.onion.keeper import ARGV, NAME
from lnsim.onion.probe import Probe
from lnsim.onion.tors import DIRECTORIES, Tors
from lnsim.scenario.model import TorSpec
from lnsim.stage import LinkState
from lnsim.swarm.crowd import Place
from node.runtime.addresses import join_address
from node.runtime.runtime import SystemRuntime
from tor import admin
from tor.errors import Refused, Unavailable

CONTROL = "control"  # the proxy in front of tor's control socket, and the name of its one link
TOR = "tor"  # all processes of the network, in figures
LOOK_S = 0.1
PUBLISHED_TIMEOUT_S = 60.0

Say = Callable[[str, str], None]


class OnionSite:
    """Implements `lnsim.stage.Onion`. `open`, `watch`, use, `close`."""

    def __init__(
        self,
        settings: TorSpec,
        directory: Path,
        frontends: Sequence[str],
        supervisor: Supervisor,
        recorder: Recorder,
        say: Say,
    ) -> None:
        self.address = ""  # ADDRESS.onion:PORT, once `open`
        self.picture: dict[
            str, Any
        ] = {}  # lntor's status, as it was at the last look; empty where it did not answer
        self.tors = Tors()
        self._settings = settings
        self._directory = directory
        self._supervisor = supervisor
        self._recorder = recorder
        self._say = say
        self._ports = {name: ReservedPort(LOOPBACK) for name in frontends}
        self._control = Remote(CONTROL, ())
        self._runtime = SystemRuntime(self._failed)
        self._outages = Outages(recorder.observe)
        self._returns = Returns(recorder.observe)
        recorder.count("onion.address_changes", 0)  # told also where there is none
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def socks(self) -> str:
        """Where whoever comes by the onion address asks the clients' tor to connect."""
        return self.tors.socks

    def frontend_config(self, name: str) -> dict[str, Any]:
        """Tor comes by a port of each frontend's own, and says of each connection which circuit it is of."""
        return {
            "proxy_listen": self._target(name),
            "proxy_from": [LOOPBACK],
        }

    def peer_config(self) -> dict[str, str]:
        """The section `tor` of a peer that comes by the onion address, and by no other that it may hear of."""
        return {"socks": self.socks, **dict.fromkeys(("ipv4", "ipv6", "dns"), "never")}

    async def open(self) -> None:
        """Returns once clients can find the service. Raises ProcessFailed, CallFailed."""
        await self.tors.start()
        self._control = Remote(
            CONTROL, [*PROXY_ARGV, self.tors.control, f"{CONTROL}={self._control_address}"]
        )
        await self._control.spawn(self._supervisor)
        path = self._directory / f"{NAME}.yaml"
        path.write_bytes(msgspec.yaml.encode(self._config()))
        await self._supervisor.start(NAME, [*ARGV, str(path)], restart=True)
        self._tasks.append(asyncio.create_task(self._look_again(), name="look at lntor"))
        await self._published(DIRECTORIES)
        self.address = str(self.picture["address"])
        self._say("info", f"onion service at {self.address}")

    def knock(self, hub_id: str, chain_hash: str) -> None:
        """From now on somebody tries all the time whether the service is there."""
        place = Place(bytes.fromhex(hub_id), bytes.fromhex(chain_hash))
        probe = Probe(self._runtime, place, self.address, self.socks, self._recorder, self._outages)
        self._tasks.append(asyncio.create_task(probe.run(), name="onion probe"))

    async def close(self) -> None:
        """Everything down that the supervisor does not know."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._outages.close()
        await self.tors.stop()
        for port in self._ports.values():
            port.close()

    def rows(self) -> Mapping[str, Sequence[Measured]]:
        """Processes by name, for figures."""
        children = self._supervisor.children
        return {TOR: self.tors.processes(), **({NAME: [children[NAME]]} if NAME in children else {})}

    # faults

    def target_down(self) -> None:
        """A frontend is about to be disturbed."""
        self._outages.fault(self._runtime.monotonic())

    async def restart(self) -> None:
        before, began_s = self._uploads, self._runtime.monotonic()
        self._outages.close()
        await self.tors.end()
        self._outages.tor_away(began_s, self._runtime.monotonic())
        await self._back(before)

    async def kill(self, for_s: float) -> None:
        before = self._uploads
        self._outages.close()
        await self.tors.kill()
        await asyncio.sleep(for_s)
        now_s = self._runtime.monotonic()
        self._outages.tor_away(now_s, now_s)
        await self._back(before)

    async def cut_control(self, for_s: float) -> None:
        self._outages.fault(self._runtime.monotonic())
        await self._control.call(CONTROL, "set", {"state": LinkState.CUT.value})
        await asyncio.sleep(for_s)
        await self._control.call(CONTROL, "set", {"state": LinkState.OPEN.value})

    async def close_circuits(self) -> int:
        self._outages.fault(self._runtime.monotonic())
        closed = await self.tors.close_circuits()
        self._recorder.count("onion.circuits_closed", closed)
        return closed

    async def _back(self, uploads: int) -> None:
        """Tor again, and its clients with it: those who asked too early would not ask again."""
        await self.tors.begin()
        await self._published(uploads + DIRECTORIES)
        await self.tors.forget()
        self._say("good", "tor is back, descriptor published")

    # lntor

    @property
    def _control_address(self) -> str:
        return f"unix:{self._directory / CONTROL}.sock"

    @property
    def _admin(self) -> str:
        return str(self._directory / f"{NAME}.sock")

    @property
    def _uploads(self) -> int:
        return int(self.picture.get("descriptor_uploads", 0))

    def _target(self, name: str) -> str:
        return join_address(LOOPBACK, self._ports[name].number)

    def _config(self) -> dict[str, Any]:
        return {
            "control": {"address": self._control_address},
            "service": {
                "directory": str(self._directory / "onion"),
                "export_circuit_id": True,
                **self._settings.service,
            },
            "targets": [{"address": self._target(name)} for name in self._ports],
            "check": self._settings.check,
            "admin": {"socket": self._admin},
            "log": {"level": "warning"},
        }

    async def _published(self, uploads: int) -> None:
        async def out() -> bool:
            return self._uploads >= uploads

        await wait_until(out, PUBLISHED_TIMEOUT_S, "descriptor of the onion service published")

    async def _look_again(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        try:
            picture = await asyncio.to_thread(admin.call, self._admin, "GET", "/status")
        except (Unavailable, Refused):
            return  # it is starting, or was killed: its last word stands
        with contextlib.suppress(KeyError):
            if self.picture and self.picture["address"] not in (None, picture["address"]):
                self._recorder.count("onion.address_changes")
        self.picture = picture
        now_s = self._runtime.monotonic()
        up = {each["address"]: each["up"] and not each["drained"] for each in picture["targets"]}
        for name in self._ports:
            child = self._supervisor.children.get(name)
            self._returns.look(
                name,
                now_s,
                is_up=child is not None and child.is_up,
                is_target=bool(up.get(self._target(name))) and picture["in_sync"],
            )

    def sample(self) -> None:
        """Gauges; asked for once a second."""
        if self.picture:
            self._recorder.sample("onion.client_circuits", self.picture["client_circuits"])
            self._recorder.sample("onion.targets_up", sum(bool(t["up"]) for t in self.picture["targets"]))

    def _failed(self, task: str, error: BaseException) -> None:
        self._say("bad", f"{task}: {error!r}")
