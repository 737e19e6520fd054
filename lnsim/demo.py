"""`lnsim demo`: a cluster, peers and payments on this machine, watched, disturbed, and proven whole at the end."""

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lnsim.api_client import Node
from lnsim.cluster import Cluster
from lnsim.demo_check import Books, Verdict, books, verdict
from lnsim.demo_monitor import Monitor
from lnsim.demo_network import Network, dialled_by_hub
from lnsim.demo_options import NAMES, TOR, BadArgument, Options
from lnsim.demo_place import Command, listen, make_place, remove_place
from lnsim.demo_state import HUB, RUNNING, Scene
from lnsim.demo_traffic import PAYMENT_TIMEOUT_S, Plan, Traffic
from lnsim.onion.needed import require_tor
from lnsim.peer_load import percentile

if TYPE_CHECKING:
    from lnsim.demo_onion import DemoOnion

BLOCK_S = 10.0
KILLABLE = "say frontend, f1, f2 ..., backend, or tor where there is one"


class Show(Protocol):
    """What a person sees while it runs."""

    async def run(self, scene: Callable[[], Scene], press: Callable[[str], None]) -> None: ...


class Stopped(Exception):  # noqa: N818 - somebody wanted it so
    """Told to stop before there was anything to sum up."""


class Demo:
    """One run. `run` returns the summary; everything that was started is gone by then."""

    def __init__(self, options: Options, place: Path, show: Show) -> None:
        self._options = options
        self._show = show
        self._place = place
        self._cluster = Cluster(place, options.frontends, list(NAMES[: options.peers]), self._say)
        self._onion = self._entrance() if options.tor else None
        self._monitor = Monitor(self._cluster, options.seed, self._onion)
        self._stop = asyncio.Event()
        self._traffic: Traffic | None = None
        self._paid_s = 0.0
        self._kills_missing = dict.fromkeys(range(len(options.faults)), "the demo ended before")  # and why

    def stop(self) -> None:
        """End early, in order."""
        self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Raises Stopped, ProcessFailed or CallFailed where it never came to payments."""
        server = await listen(self._place, self._obey)
        background = [
            asyncio.create_task(self._monitor.run(), name="monitor"),
            asyncio.create_task(self._show.run(self._monitor.scene, self.press), name="show"),
        ]
        if self._onion is not None:
            background.append(asyncio.create_task(self._onion.watch(), name="watch tor"))
        try:
            await self._until_stopped(self._build(), background)
            if self._stop.is_set():
                raise Stopped
            nodes: dict[str, Node] = {HUB: self._cluster.api, **{p.name: p for p in self._cluster.peers}}
            before = await books(nodes)
            if self._stop.is_set():
                raise Stopped
            await self._pay(nodes, background)
            checked = await self._check(nodes, before)
            await self._monitor.look()
        finally:
            self._monitor.phase = "stopping"
            server.close()
            await _cancel(background[:1])
            if self._onion is not None:
                await self._onion.close()
            await self._cluster.stop()
            await _cancel(background[1:])
        return self._summary(checked)

    def _entrance(self) -> "DemoOnion":
        """Peers that dial come by an onion address. Raises Refused where there is no tor."""
        require_tor("--tor")
        from lnsim.demo_onion import DemoOnion  # noqa: PLC0415 - what it imports is of an extra

        onion = DemoOnion(self._cluster, self._say)
        self._cluster.entrance = onion
        by_hub = dialled_by_hub(self._cluster)
        self._cluster.by_entrance = [peer for peer in self._cluster.peers if peer not in by_hub]
        return onion

    async def _build(self) -> None:
        await self._cluster.start()
        self._monitor.phase = "opening channels"
        await Network(self._cluster, self._say).build()

    async def _pay(self, nodes: dict[str, Node], background: list[asyncio.Task[None]]) -> None:
        plan = Plan(self._options.seed, [peer.name for peer in self._cluster.peers])
        node_ids = {HUB: self._cluster.node_id, **{p.name: p.node_id for p in self._cluster.peers}}
        traffic = Traffic(nodes, node_ids, plan, self._options.rate_per_s, self._monitor.paid)
        self._traffic = self._monitor.traffic = traffic
        self._monitor.phase = RUNNING
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        faults = [asyncio.create_task(self._later(n)) for n in range(len(self._options.faults))]
        work = [asyncio.create_task(traffic.run()), asyncio.create_task(self._mine())]
        try:
            await self._until_stopped(_sleep(self._options.for_s), [*background, *work])
        finally:
            await _cancel([*work, *faults])
            self._paid_s = loop.time() - began_s
        self._monitor.phase = "settling"
        await traffic.drain(PAYMENT_TIMEOUT_S)

    async def _mine(self) -> None:
        """A block now and then, so that the channels of guests are confirmed too."""
        while True:
            await asyncio.sleep(BLOCK_S)
            self._say("info", f"block {await self._cluster.mine(1)}")

    async def _check(self, nodes: dict[str, Node], before: Books) -> Verdict:
        assert self._traffic is not None
        self._monitor.phase = "checking the books"
        after = await books(nodes, before)
        await self._traffic.learn_unknown()
        checked = verdict(before, after, None if self._monitor.guests else self._traffic.balance_msat)
        for complaint in checked.complaints:
            self._say("bad", complaint)
        return checked

    async def _until_stopped(self, work: Awaitable[None], background: list[asyncio.Task[None]]) -> None:
        """Do the work, unless told to stop; what breaks in the background breaks this too."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping, *background), return_when=asyncio.FIRST_COMPLETED)
            for task in (working, *background):
                if task.done():
                    task.result()
        finally:
            stopping.cancel()
            await _cancel([working])

    # disturbances

    def press(self, key: str) -> None:
        """A key of the view."""
        if key == "q":
            self.stop()
        elif key == "k" and self._traffic is not None:
            with contextlib.suppress(BadArgument):
                self.kill("frontend")
        elif key == "t" and self._onion is not None:
            self._onion.restart()
        elif key == "p" and self._traffic is not None:
            going = self._traffic.going
            going.clear() if going.is_set() else going.set()

    def kill(self, what: str) -> str:
        """End a process as a crash would; returns its name. Raises BadArgument."""
        if what == TOR and self._onion is not None:
            if not self._onion.kill():
                raise BadArgument("tor is down just now")
            return what
        children = self._cluster.supervisor.children
        states = self._monitor.frontends
        if what == "frontend":  # the one whose loss is felt most
            up = [name for name in self._cluster.frontends if name in children and children[name].pid]
            if not up:
                raise BadArgument("no frontend is up just now")
            what = max(up, key=lambda name: states[name].sessions)
        if what not in (*self._cluster.frontends, "backend") or what not in children:
            raise BadArgument(f'"{what}" cannot be killed: {KILLABLE}')
        if children[what].pid is None:
            raise BadArgument(f"{what} is down already")
        children[what].kill()
        sessions = states[what].sessions if what in states else 0
        lost = f", {sessions} sessions cut" if what in states else ""
        self._say("bad", f"{what} killed{lost}")
        if what in states:
            self._monitor.cut(what)
        return what

    async def _later(self, number: int) -> None:
        each = self._options.faults[number]
        await asyncio.sleep(each.at_s)
        try:
            self.kill(each.what)
        except BadArgument as error:
            self._kills_missing[number] = str(error)
            self._say("bad", str(error))
        else:
            del self._kills_missing[number]

    def _missing(self) -> list[str]:
        """Kills that were asked for and not carried out: what they were to show was not shown."""
        faults = self._options.faults
        return [f"{faults[number]} not carried out: {why}" for number, why in self._kills_missing.items()]

    async def _obey(self, command: Command) -> Command:
        if "kill" in command:
            try:
                return {"killed": self.kill(str(command["kill"]))}
            except BadArgument as error:
                return {"error": str(error)}
        if not self._cluster.node_id:
            return {"error": "the demo is still starting"}
        endpoint = self._cluster.endpoint
        api = self._place / "hub" / "api.sock"
        return {
            "peer": f"{self._cluster.node_id}@{self._cluster.address}",
            "api": str(api),
            **({"onion": self._onion.address} if self._onion is not None else {}),
            "curl": f"curl --unix-socket {shlex.quote(str(api))} -X POST http://node/getinfo",
            "chain": endpoint.get("rpc_url"),
            "user": endpoint.get("user"),
            "password": endpoint.get("password"),
            "zmq": endpoint.get("zmq"),
        }

    def _say(self, kind: str, text: str) -> None:
        self._monitor.say(kind, text)

    def _summary(self, checked: Verdict) -> dict[str, Any]:
        assert self._traffic is not None
        children = self._cluster.supervisor.children
        latencies_ms = sorted(self._traffic.latencies_ms)
        payments = self._monitor.payments()
        frontends = [
            {
                "id": name,
                "sessions": state.sessions,
                "messages_in": state.messages_in,
                "messages_out": state.messages_out,
                "payments": self._monitor.carried[name],
                "restarts": children[name].restarts,
                **_usage(children[name].usage()),
            }
            for name, state in self._monitor.frontends.items()
        ]
        of_tor = {} if self._onion is None else {"tor": self._onion.summary()}
        return {
            "seed": self._options.seed,
            "duration_s": round(self._paid_s, 3),
            "frontends": frontends,
            "backend": {
                **_usage(children["backend"].usage()),
                "commits": self._monitor.store_commits,
                "restarts": children["backend"].restarts,
            },
            "payments": {
                "attempted": payments.attempted,
                "settled": payments.settled,
                "failed": payments.failed,
                "pending": payments.pending,
                "p50_ms": round(percentile(latencies_ms, 0.5), 2),
                "p99_ms": round(percentile(latencies_ms, 0.99), 2),
                "failures": dict(self._traffic.reasons.most_common(10)),
            },
            "invariants": {
                "msat_conserved": checked.msat_conserved,
                "htlcs_lost": checked.htlcs_lost,
                "channels_closed": checked.channels_closed,
                "processes_left": self._cluster.supervisor.left_over(),
            },
            **of_tor,
            "complaints": [*checked.complaints, *self._missing()],
        }


def holds(summary: dict[str, Any]) -> bool:
    """Whether every invariant of a summary holds, and nothing else was found wanting."""
    whole = {"msat_conserved": True, "htlcs_lost": 0, "channels_closed": 0, "processes_left": 0}
    return summary["invariants"] == whole and not summary["complaints"]


async def run(options: Options, show: Show) -> dict[str, Any]:
    """A demo from start to end, in a directory of its own; SIGINT and SIGTERM end it in order."""
    place = make_place()
    try:
        demo = Demo(options, place, show)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, demo.stop)
        return await demo.run()
    finally:
        remove_place(place)


async def _sleep(for_s: float | None) -> None:
    if for_s is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(for_s)


async def _cancel(tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _usage(usage: Any) -> dict[str, float]:
    return {"cpu_s": round(usage.cpu_s, 3), "rss_mb": round(usage.rss_mb, 1)}
