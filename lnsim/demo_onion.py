"""The onion service of a demo: a private Tor network in front of the frontends, watched and disturbed."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lnsim.api_client import CallFailed
from lnsim.cluster import Hub
from lnsim.cluster_process import ProcessFailed
from lnsim.demo_state import Health, TorState
from lnsim.metrics.recorder import Recorder
from lnsim.onion.site import OnionSite
from lnsim.onion.tors import TorProcess
from lnsim.scenario.model import TorSpec

LOOK_S = 0.5
DOWN_S = 1.5  # from a kill to the new start, as a service manager does it


class DemoOnion:
    """Implements `lnsim.cluster.Entrance`. `open`, `watch` beside, `close`."""

    def __init__(self, hub: Hub, say: Callable[[str, str], None]) -> None:
        self.restarts = 0
        self._say = say
        recorder = Recorder(time.monotonic)
        self._site = OnionSite(TorSpec(), hub.directory, hub.frontends, hub.supervisor, recorder, say)
        self._names = {self._site.frontend_config(name)["proxy_listen"]: name for name in hub.frontends}
        self._bootstrapped = self._streams = 0
        self._disturbing: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return self._site.address

    def processes(self) -> Sequence[TorProcess]:
        """Of the whole Tor network."""
        return self._site.tors.processes()

    def frontend_config(self, name: str) -> dict[str, Any]:
        return self._site.frontend_config(name)

    def peer_config(self) -> dict[str, Any]:
        return self._site.peer_config()

    async def open(self) -> None:
        """Raises ProcessFailed, CallFailed."""
        self._say("info", "building a Tor network: six tors on loopback")
        await self._site.open()

    async def close(self) -> None:
        if self._disturbing is not None:
            self._disturbing.cancel()
            await asyncio.gather(self._disturbing, return_exceptions=True)
        await self._site.close()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            if self._site.tors.up and not self.is_away:
                self._bootstrapped = self._site.tors.bootstrapped()
                with contextlib.suppress(ProcessFailed):
                    self._streams = await self._site.tors.streams()
            await asyncio.sleep(LOOK_S)

    @property
    def is_away(self) -> bool:
        """Its tor is down, or has not published yet."""
        return self._disturbing is not None and not self._disturbing.done()

    def restart(self) -> bool:
        """Begin to restart its tor; False where it is away, or was never there."""
        return self._disturb(self._site.restart(), "tor restarted")

    def kill(self) -> bool:
        """The same as a crash would do it."""
        return self._disturb(self._site.kill(DOWN_S), "tor killed")

    def state(self) -> TorState:
        """For the picture."""
        picture = self._site.picture
        targets = {self._names[each["address"]]: bool(each["up"]) for each in picture.get("targets", ())}
        return TorState(
            health=Health.DOWN if self.is_away else Health.UP if self.address else Health.STARTING,
            address=self.address,
            bootstrapped=self._bootstrapped,
            published_ago_s=picture.get("published_ago_s"),
            targets=tuple(targets.items()),
            circuits=picture.get("client_circuits", 0),
            streams=self._streams,
        )

    def summary(self) -> dict[str, Any]:
        state = self.state()
        return {
            "address": state.address,
            "restarts": self.restarts,
            "descriptor_uploads": self._site.picture.get("descriptor_uploads", 0),
            "targets_up": sum(up for _, up in state.targets),
            "circuits": state.circuits,
            "streams": state.streams,
        }

    def _disturb(self, work: Coroutine[Any, Any, None], text: str) -> bool:
        if self.is_away or not self.address:
            work.close()
            return False
        self.restarts += 1
        self._bootstrapped = self._streams = 0
        self._say("bad", text)
        self._disturbing = asyncio.create_task(self._back(work), name=text)
        return True

    async def _back(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ProcessFailed, CallFailed) as failure:
            self._say("bad", str(failure).splitlines()[0])
