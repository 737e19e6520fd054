"""A frontend: one listening port, its connections, one link to the backend. Nothing in here survives it, or needs to."""

import asyncio
import contextlib
from collections.abc import Iterable

from node.crypto.keys import public_key
from node.errors import Refused
from node.frontend.admission import UNLIMITED, Admission, GossipBudget, Networks
from node.frontend.connection import Acts, PeerConnection
from node.frontend.door import Door
from node.frontend.draining import Draining
from node.frontend.endings import Endings
from node.frontend.gossip import FrontendGossip
from node.frontend.local_handshakes import LocalHandshakes
from node.frontend.outgoing import Outgoing
from node.frontend.uplink import Uplink
from node.gossip.graph import Delta
from node.gossip.validation import Verdict
from node.link.beats import BEAT_INTERVAL_S
from node.link.messages import DRAINS, PRESENTING, Dial, Limits, Shares, Status, Welcome
from node.peer.session import SessionRules
from node.runtime import logs, node_key, tls
from node.runtime.certificates import Role
from node.runtime.config import FrontendConfig
from node.runtime.runtime import Listener, Runtime
from node.wire.features import Features

SWEEP_INTERVAL_S = BEAT_INTERVAL_S
REFUSED_HOLD_S = 3.0  # a few tries: one of several backends may lead
# After a silence: it may be that only we are cut off, and a backend that lives has given these sessions up by then.
MAX_EARLY = 500  # sockets that may wait for a backend to shake hands: about a second's worth of strangers
MAX_PONG_SIZE = 256  # asked for in our pings: some cover traffic, little cost

_VERDICTS = frozenset(Verdict)

log = logs.get("frontend")


class Frontend:
    """The `House` of its connections and the `Tenant` of its uplink."""

    def __init__(
        self,
        runtime: Runtime,
        config: FrontendConfig,
        frontend_id: str,
        version: str,
        *,
        share_port: bool = True,
    ) -> None:
        """`share_port`: with the other frontends of this host."""
        self.runtime = runtime
        self._share_port = share_port
        self.id = frontend_id
        self.version = version
        self._config = config
        self.connections: dict[int, PeerConnection] = {}
        self.uplink = Uplink(runtime, self, frontend_id, version)
        self.tls = tls.load(config.tls, Role.FRONTEND, runtime.now)
        self._key = node_key.load(config.node_key) if config.handshakes == "frontend" else None
        self._local: LocalHandshakes | None = None
        now_s = runtime.monotonic()
        self.admission = Admission(config.limits_exempt, config.max_connections, now_s)
        self.budget = GossipBudget(now_s)
        self._proxies = Networks(config.proxy_from)
        self._counted = (now_s, 0, 0)  # when, accepted and served until then
        self._outgoing = Outgoing(runtime, config)
        self.uplink.capabilities = (*self._outgoing.capabilities, DRAINS)
        self.gossip = FrontendGossip(runtime, self.uplink, self.connections)
        self.rules = SessionRules(features=Features(), chain_hash=bytes(32))
        self.limits = Limits()
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.endings = Endings()
        self.draining: Draining | None = None
        self._emptied = asyncio.Event()
        # (frontend, number) is never used twice, also not after a restart under the same name
        self._number = int(runtime.now()) << 24
        self._listener: Listener | None = None
        self._proxy_listener: Listener | None = None
        self.listening = asyncio.Event()
        self._opening = asyncio.Lock()
        self._away_until_s: float | None = None  # while sessions wait for a backend to adopt them
        self._early: dict[int, PeerConnection] = {}  # came while the backend was away
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect to the backend; the port opens once the graph is current (`listening`)."""
        spawn = self.runtime.spawn
        self._tasks = [
            spawn(self.uplink.run(self._config.backends, self._config.reconnect_s, self.tls), "uplink"),
            spawn(self._sweep(), "sweep"),
        ]

    async def stop(self) -> None:
        """Close every connection, then the link."""
        self._close_port()
        for connection in list(self.connections.values()):
            connection.close("frontend stops")
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        self.uplink.abort()
        self.gossip.current = False
        async with self._opening:  # a port on its way sees that it is not wanted any more
            self._close_port()

    @property
    def address(self) -> str:
        """Where peers connect, once it listens."""
        return "" if self._listener is None else self._listener.address

    @property
    def proxy_address(self) -> str:
        """Where load balancers connect, once it listens."""
        return "" if self._proxy_listener is None else self._proxy_listener.address

    @property
    def held(self) -> int:
        """Sessions that wait for a backend to adopt them."""
        return sum(1 for connection in self.connections.values() if connection.suspended)

    # the link

    def welcome(self, message: Welcome) -> None:
        self.limits = message.limits
        self.shares(UNLIMITED)
        self._take_up_handshakes(message)
        for connection in self._outgoing.configure(message.dialling, self.connections.values()):
            connection.close("dialled another way now")
        self.rules = SessionRules(
            features=Features.from_bytes(message.features),
            chain_hash=message.chain_hash,
            init_timeout_s=message.limits.init_timeout_s,
            ping_interval_s=message.limits.ping_interval_s,
            ping_timeout_s=message.limits.ping_timeout_s,
        )
        self.gossip.configure(message)
        if message.protocol < PRESENTING:  # it would not know the sessions that we hold
            self._end_held("backend lost")
        early, self._early = self._early, {}
        for connection in early.values():
            connection.wake()

    def _take_up_handshakes(self, message: Welcome) -> None:
        """With the node's key, and leave to use it, strangers' handshakes are run here."""
        self._local = None
        if self._key is None:
            return
        if (ours := public_key(self._key)) != message.node_id:
            self.runtime.spawn(_refuse_key(ours, message.node_id), "node_key")
        elif message.frontend_handshakes:
            self._local = LocalHandshakes(self.runtime, self.uplink, self._key)
        else:
            log.warning("handshakes_stay_at_the_backend", why="its configuration does not say otherwise")

    @property
    def acts(self) -> Acts:
        return self._local or self.uplink

    def shares(self, message: Shares) -> None:
        self.admission.share(message)
        self.budget.share(message)

    def link_lost(self, *, hold: bool, silent: bool) -> None:
        """Peers need not notice that the backend is away, if the next one can go on with their sessions."""
        log.warning("link_lost", sessions=len(self.connections), hold=hold)
        self.gossip.current = False
        if self._away_until_s is None:
            timeout_s = self._config.backend_away_timeout_s
            hold_s = min(self.limits.silent_hold_s, timeout_s) if silent else timeout_s
            self._away_until_s = self.runtime.monotonic() + hold_s
        for connection in list(self.connections.values()):
            if not hold:
                connection.close("backend lost")
                continue
            connection.suspend()
            if not (connection.ended or connection.suspended):
                self._early[connection.number] = connection
        if not hold:
            self._close_port()

    def link_refused(self) -> None:
        """Over TLS it may be that our certificate is revoked: then nobody will go on with what we hold."""
        if self._away_until_s is not None:
            self._away_until_s = min(self._away_until_s, self.runtime.monotonic() + REFUSED_HOLD_S)

    def _check_away(self, now_s: float) -> None:
        """Nothing waits for ever: without a backend no peer can be served, and there may be other nodes' frontends."""
        if self._away_until_s is None:
            return
        if self.uplink.is_up and not any(c.suspended for c in self.connections.values()):
            self._away_until_s = None
        elif now_s > self._away_until_s:
            self._end_held("backend lost")
            if not self.uplink.is_up:
                self._close_port()
                for connection in list(self._early.values()):
                    connection.close("backend lost")

    def _end_held(self, cause: str) -> None:
        for connection in list(self.connections.values()):
            if connection.suspended:
                connection.close(cause)

    def graph_records(self, first_sequence: int, deltas: Iterable[Delta]) -> None:
        self.gossip.records(first_sequence, deltas)

    def graph_current(self, sequence: int) -> None:
        self.gossip.snapshot_complete(sequence)
        if self._wanted() and self._listener is None:
            self.runtime.spawn(self._open_port(), "listen")

    def verdicts(self, verdicts: tuple[tuple[int, int], ...]) -> None:
        for offer, number in verdicts:
            # a backend one release ahead may have reasons to refuse that we do not know
            self.gossip.verdict(offer, Verdict(number) if number in _VERDICTS else Verdict.UNSUITABLE)

    def start_sync(self, connection: PeerConnection) -> None:
        self.gossip.start_sync(connection)

    def status(self) -> Status:
        now_s = self.runtime.monotonic()
        before_s, accepted, served = self._counted
        self._counted = (now_s, self.admission.accepted, self.budget.served)
        spent_s = max(now_s - before_s, 0.001)
        return Status(
            handshakes=self.admission.handshakes,
            connections_per_s=(self.admission.accepted - accepted) / spent_s,
            gossip_bytes_per_s=(self.budget.served - served) / spent_s,
            shares=self.admission.shares,
            sessions=len(self.connections),
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            graph_sequence=self.gossip.graph.sequence,
            draining=self.draining is not None,
            ready=self.listening.is_set(),
        )

    async def _open_port(self) -> None:
        async with self._opening:
            if self._listener is None and self._wanted() and self._config.listen:
                listener = await self.runtime.listen(
                    self._config.listen, self._at_the_door, share_port=self._share_port
                )
                proxied = None
                if self._config.proxy_listen:
                    proxied = await self.runtime.listen(
                        self._config.proxy_listen, self._at_the_proxy_door, share_port=self._share_port
                    )
                self._listener, self._proxy_listener = listener, proxied
                if not self._wanted():  # the link was lost meanwhile
                    self._close_port()
                    return
                log.info("listening", address=listener.address, proxy=proxied and proxied.address)
        if self._wanted():
            self.listening.set()

    def _wanted(self) -> bool:
        """Whether new peers may come in."""
        return self.gossip.current and self.draining is None and not self._outgoing.leaks

    def _at_the_door(self) -> asyncio.Protocol:
        if self._config.proxy_on_listen:
            return Door(self, self._proxies, only_trusted=False)
        return PeerConnection(self)

    def _at_the_proxy_door(self) -> asyncio.Protocol:
        return Door(self, self._proxies, only_trusted=True)

    def _close_port(self) -> None:
        self.listening.clear()
        if self._proxy_listener is not None:
            self._proxy_listener.close()
            self._proxy_listener = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # connections

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def opened(self, connection: PeerConnection) -> str:
        if connection.dial is None:
            cause = self.admission.enter(connection.address, self.runtime.monotonic())
            if cause:
                log.debug("not_admitted", address=connection.address, cause=cause)
                return cause
        self.connections[connection.number] = connection
        self.gossip.join(connection)
        if not self.uplink.is_up:
            self._early[connection.number] = connection
            if len(self._early) > MAX_EARLY:
                return "no_backend"
        return ""

    def shaken(self, connection: PeerConnection) -> None:
        if connection.dial is None:
            self.admission.shaken(connection.address)

    def closed(self, connection: PeerConnection, cause: str) -> None:
        if self.connections.pop(connection.number, None) is not None:
            self.gossip.leave(connection)
            self._early.pop(connection.number, None)
            if self._local is not None:
                self._local.forget(connection)
            if connection.dial is None:
                self.admission.leave(connection.address, shaking=connection.session is None)
            self.endings.count(cause, established=connection.session is not None)
            self.uplink.ended(connection, cause)

    def dial(self, message: Dial) -> None:
        self.runtime.spawn(self._dial(message), "dial")

    def drain(self, over_s: float | None) -> None:
        """Nobody new comes in, and who is here goes evenly over this time; None: serve again."""
        self._emptied.clear()
        log.info("drain", over_s=over_s, sessions=len(self.connections))
        if over_s is None:
            self.draining = None
            if self.gossip.current:
                self.runtime.spawn(self._open_port(), "listen")
            return
        self.draining = Draining(self.runtime.monotonic(), over_s, len(self.connections))
        self._close_port()

    async def leave(self) -> None:
        """Before the end: drain, as long as the configuration says."""
        if self._config.drain_s and self.uplink.welcomed is not None:
            self.drain(self._config.drain_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.drain_s + 2 * SWEEP_INTERVAL_S):
                    await self._emptied.wait()

    def _let_go(self, now_s: float) -> None:
        if self.draining is None:
            return
        for _ in range(self.draining.due(now_s, len(self.connections))):
            next(iter(self.connections.values())).close("drained")
        if not self.connections:
            self._emptied.set()

    async def _dial(self, message: Dial) -> None:
        def connection() -> PeerConnection:
            return PeerConnection(self, dial=message.dial, first_act=message.act, address=message.address)

        try:
            await self._outgoing.connect(message.address, message.node_id, connection, message.timeout_s)
        except (OSError, TimeoutError, Refused) as error:
            self.uplink.dial_failed(message.dial, str(error))

    async def _sweep(self) -> None:
        """One timer for all: pings and timeouts, flushes, signs of life on the link."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now_s = self.runtime.monotonic()
            pong_size = self.runtime.random.randrange(MAX_PONG_SIZE)
            for connection in list(self.connections.values()):
                connection.check(now_s, pong_size)
                if connection.queries:
                    self.gossip.relax(connection)
                if connection.starved:
                    connection.pump()
            self._check_away(now_s)
            self._let_go(now_s)
            self.gossip.sweep()
            self.uplink.beat()
            self.admission.sweep(now_s)
            self.budget.sweep(now_s)
            if self.tls is not None:
                self.tls.sweep()


async def _refuse_key(ours: bytes, theirs: bytes) -> None:
    """As a task, so that the process ends with it: no other backend will do either."""
    raise Refused(f"node_key: is that of node {ours.hex()}, the backend is {theirs.hex()}; take its key")
