"""A group of light peers as one object: its commands are the workloads' (lnsim.stage.Swarm)."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from lnsim.background_graph import shape_of
from lnsim.scenario.model import GraphSpec
from lnsim.swarm.crowd import LightCrowd, Place, Recorder
from lnsim.swarm.dialler import DIAL_TIMEOUT_S, MAX_BACK_OFF_S, ONION_TIMEOUT_S, Dialler
from lnsim.swarm.pace import pace
from lnsim.swarm.rude import ALL_WAYS, RudePeers
from lnsim.swarm.storm import Mixture, Storm
from lnsim.swarm.sync import Ids
from lnsim.swarm.syncs import finished
from lnsim.swarm.updates import Updates
from node.errors import Refused
from node.runtime.runtime import Runtime

PATIENCE_S = DIAL_TIMEOUT_S + 10 * MAX_BACK_OFF_S  # `connect`: after the last one was sent in
ONION_PATIENCE_S = 2 * ONION_TIMEOUT_S  # the same, through a tor

Result = dict[str, Any]
Command = Callable[..., Coroutine[Any, Any, Result]]
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})+$")]


class SwarmConfig(Struct, frozen=True, kw_only=True):
    """What all peers of a swarm have in common."""

    hub_id: Hex
    addresses: tuple[str, ...]  # of the node under test; drawn at random for each connection
    count: int  # peers, unless `connect` says otherwise
    chain_hash: Hex
    socks: str = ""  # of the tor that knows the way to these addresses; each peer has a circuit of its own
    ping_interval_s: float = 20.0
    listens: bool = False  # asks for gossip from the moment it is connected
    part: int = 0  # of `parts`, where the group's peers are in several processes: their storms share a graph
    parts: int = 1


class Swarm:
    """Mutable; over a runtime only, so it runs on real sockets and in a virtual world."""

    def __init__(self, runtime: Runtime, group: str, config: SwarmConfig, recorder: Recorder) -> None:
        """Raises Refused for what is no address."""
        self.group = group
        self._runtime = runtime
        self._config = config
        self._recorder = recorder
        self._place = Place(bytes.fromhex(config.hub_id), bytes.fromhex(config.chain_hash))
        self._dialler = Dialler(runtime, config.addresses, config.socks)
        self._crowd = LightCrowd(
            runtime,
            recorder,
            self._place,
            self._dialler,
            ping_interval_s=config.ping_interval_s,
            listens=config.listens,
        )
        self._rude = RudePeers(runtime, recorder, self._place, self._dialler, self._crowd.traffic)
        self._storm_timestamp = 0  # of two updates about one direction, the one with the later second counts

    async def call(self, name: str, arguments: dict[str, Any]) -> Result:
        """A command by its name. Raises Refused for what is none, or not so."""
        commands: dict[str, Command] = {
            "connect": self.connect,
            "drop": self.drop,
            "churn": self.churn,
            "sync": self.sync,
            "storm": self.storm,
            "rude": self.rude,
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
            async with asyncio.timeout(ONION_PATIENCE_S if self._config.socks else PATIENCE_S):
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

    async def sync(self, queries: float, messages: int | None = None, timeout_s: float = 120.0) -> Result:
        """Every peer asks for the whole graph at once, that share by queries, the others by a filter.

        A filter's backlog is through after so many `messages`, or once nothing more comes.
        """
        crowd, recorder = self._crowd, self._recorder
        ready = crowd.ready()
        self._runtime.random.shuffle(ready)
        ids, asking = Ids(), round(queries * len(ready))
        syncs = {}
        for place, peer in enumerate(ready):
            if sync := crowd.begin_sync(peer, ids if place < asking else None, messages):
                syncs[peer] = sync
        result = {"complete": 0, "incomplete": 0, "messages": 0, "bytes": 0}
        async for peer, sync in finished(syncs, self._runtime.monotonic, timeout_s):
            crowd.end_sync(peer, sync)
            result["complete" if sync.complete else "incomplete"] += 1
            result["messages"] += sync.messages
            result["bytes"] += sync.bytes
            if sync.complete:
                recorder.observe("sync", sync.last_s - sync.began_s)
        recorder.count("sync.incomplete", result["incomplete"])
        recorder.count("sync.messages", result["messages"])
        recorder.count("sync.bytes", result["bytes"])
        return result

    async def storm(
        self,
        per_s: float,
        duration_s: float,
        graph: dict[str, Any],
        seed: int,
        ramp_s: float = 0.0,
        duplicate: float = 0.2,
        invalid: float = 0.1,
    ) -> Result:
        """Send channel_updates of the background graph: new ones, repeated ones, invalid ones.

        `graph` and `seed` are what the graph was made of (a scenario's GraphSpec as plain data, the run's seed).
        Listening peers, of this swarm and of others, observe how long the new ones were on their way.
        """
        spec, config = msgspec.convert(graph, GraphSpec), self._config
        if not (spec.channels or spec.file):
            raise Refused(f"{self.group}: no storm without a background graph")
        drawn = await self._runtime.run_blocking("storm", lambda: shape_of(spec, seed))
        first = max(int(self._runtime.now()), self._storm_timestamp)
        updates = Updates(drawn, seed, first, config.part, config.parts)
        storm = Storm(
            updates, Mixture(duplicate, invalid), Random(f"{seed} {self.group} {config.part} storm")
        )
        self._recorder.count("gossip.invalid_received", 0)  # told also where none was heard
        held = 0
        async for due in pace(per_s, duration_s, ramp_s):
            held += self._blow(storm, due)
        self._storm_timestamp = storm.timestamp + 1
        result = {"fresh": storm.fresh, "duplicate": storm.duplicate, "invalid": storm.invalid, "held": held}
        for name, count in result.items():
            self._recorder.count(f"storm.{name}", count)
        return result

    def _blow(self, storm: Storm, due: int) -> int:
        """Send what is due, through all peers in turn; returns how many found nobody to take them."""
        sessions = [peer.session for peer in self._crowd.ready()]
        takers = [session for session in sessions if session is not None and session.writable]
        if not takers:
            return due
        raws = [storm.next(self._runtime.now()) for _ in range(due)]
        first = self._runtime.random.randrange(len(takers))
        for place in range(min(due, len(takers))):
            takers[(first + place) % len(takers)].send(raws[place :: len(takers)])
        return 0

    async def rude(
        self,
        per_s: float,
        duration_s: float,
        ways: tuple[str, ...] = ALL_WAYS,
        max_open: int = 200,
        bound_s: float = 30.0,
    ) -> Result:
        """Connections that misbehave, each until the node closes it or for `bound_s`; those left at the end are cut."""
        await self._rude.run(per_s, duration_s, tuple(ways), max_open, bound_s)
        return {}

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
        self._rude.stop()
        self._dialler.stop()
        await self._crowd.shrink(0)
        self._crowd.stop()
        return {}
