"""A group of light peers as one object: its commands are the workloads' (lnsim.stage.Swarm)."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from msgspec import Meta, Struct

from lnsim.swarm.crowd import LightCrowd, Place, Recorder
from lnsim.swarm.dialler import DIAL_TIMEOUT_S, MAX_BACK_OFF_S, Dialler
from lnsim.swarm.pace import pace
from node.errors import Refused
from node.runtime.runtime import Runtime

PATIENCE_S = DIAL_TIMEOUT_S + 10 * MAX_BACK_OFF_S  # `connect`: after the last one was sent in

Result = dict[str, Any]
Command = Callable[..., Coroutine[Any, Any, Result]]
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})+$")]


class SwarmConfig(Struct, frozen=True, kw_only=True):
    """What all peers of a swarm have in common."""

    hub_id: Hex
    addresses: tuple[str, ...]  # of the node under test; drawn at random for each connection
    count: int  # peers, unless `connect` says otherwise
    chain_hash: Hex
    ping_interval_s: float = 20.0
    listens: bool = False  # asks for gossip from the moment it is connected


class Swarm:
    """Mutable; over a runtime only, so it runs on real sockets and in a virtual world."""

    def __init__(self, runtime: Runtime, group: str, config: SwarmConfig, recorder: Recorder) -> None:
        """Raises Refused for what is no address."""
        self.group = group
        self._runtime = runtime
        self._config = config
        self._recorder = recorder
        self._place = Place(bytes.fromhex(config.hub_id), bytes.fromhex(config.chain_hash))
        self._dialler = Dialler(runtime, config.addresses)
        self._crowd = LightCrowd(
            runtime,
            recorder,
            self._place,
            self._dialler,
            ping_interval_s=config.ping_interval_s,
            listens=config.listens,
        )

    async def call(self, name: str, arguments: dict[str, Any]) -> Result:
        """A command by its name. Raises Refused for what is none, or not so."""
        commands: dict[str, Command] = {
            "connect": self.connect,
            "drop": self.drop,
            "churn": self.churn,
            "stats": self.stats,
            "stop": self.stop,
        }
        if name not in commands:
            raise Refused(f"{self.group}: no command {name}; there are {', '.join(commands)}")
        try:
            running = commands[name](**arguments)
        except TypeError as error:
            raise Refused(f"{self.group}: {error}") from error
        return await running

    async def connect(self, per_s: float, count: int | None = None) -> Result:
        """Keep so many connected from now on; returns once all are, or have not managed for a while."""
        wanted = self._config.count if count is None else count
        crowd = self._crowd
        await crowd.shrink(wanted)
        missing = wanted - len(crowd.peers)
        if missing:
            async for due in pace(per_s, missing / per_s):
                for _ in range(due):
                    crowd.add()
        while len(crowd.peers) < wanted:  # what rounding left over
            crowd.add()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await crowd.reached(wanted)
        return {"connected": crowd.sessions, "failed": max(0, wanted - crowd.sessions)}

    async def drop(self, share: float) -> Result:
        """Cut that share of the connections at once; they come back by themselves."""
        ready = self._crowd.ready()
        dropped = self._runtime.random.sample(ready, round(share * len(ready)))
        for peer in dropped:
            if peer.connection is not None:
                peer.connection.abort()
        return {"dropped": len(dropped)}

    async def churn(self, per_s: float, duration_s: float, ramp_s: float = 0.0) -> Result:
        """Connected peers leave and others come in their place, at that rate."""
        replaced = 0
        async for due in pace(per_s, duration_s, ramp_s):
            for _ in range(due):
                replaced += self._crowd.replace_one()
        return {"replaced": replaced}

    async def stats(self) -> Result:
        crowd, traffic = self._crowd, self._crowd.traffic
        return {
            "peers": len(crowd.peers),
            "connected": sum(peer.connection is not None for peer in crowd.peers),
            "ready": crowd.sessions,
            "pings": crowd.pings,
            "pongs": crowd.pongs,
            "late_pongs": crowd.late_pongs,
            "messages_in": traffic.messages_in,
            "messages_out": traffic.messages_out,
            "bytes_in": traffic.bytes_in,
            "bytes_out": traffic.bytes_out,
        }

    async def stop(self) -> Result:
        """Everybody leaves, and nobody comes back."""
        self._dialler.stop()
        await self._crowd.shrink(0)
        self._crowd.stop()
        return {}
