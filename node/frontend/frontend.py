"""A frontend: one listening port, its connections, one link to the backend. Nothing in here survives it, or needs to."""

import asyncio
from collections.abc import Iterable

from node.errors import Refused
from node.frontend.connection import PeerConnection
from node.frontend.gossip import FrontendGossip
from node.frontend.uplink import Uplink
from node.gossip.graph import Delta
from node.gossip.validation import Verdict
from node.link.messages import Dial, Limits, Status, Welcome
from node.peer.session import SessionRules
from node.runtime import logs
from node.runtime.config import FrontendConfig
from node.runtime.runtime import Listener, Runtime
from node.wire.features import Features

SWEEP_INTERVAL_S = 1.0
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
        self._config = config
        self.connections: dict[int, PeerConnection] = {}
        self.uplink = Uplink(runtime, self, frontend_id, version)
        self.gossip = FrontendGossip(runtime, self.uplink, self.connections)
        self.rules = SessionRules(features=Features(), chain_hash=bytes(32))
        self.limits = Limits()
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        # (frontend, number) is never used twice, also not after a restart under the same name
        self._number = int(runtime.now()) << 24
        self._listener: Listener | None = None
        self.listening = asyncio.Event()
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect to the backend; the port opens once the graph is current (`listening`)."""
        spawn = self.runtime.spawn
        self._tasks = [
            spawn(self.uplink.run(self._config.backends, self._config.reconnect_s), "uplink"),
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

    # the link

    def welcome(self, message: Welcome) -> None:
        self.limits = message.limits
        self.rules = SessionRules(
            features=Features.from_bytes(message.features),
            chain_hash=message.chain_hash,
            init_timeout_s=message.limits.init_timeout_s,
            ping_interval_s=message.limits.ping_interval_s,
            ping_timeout_s=message.limits.ping_timeout_s,
        )
        self.gossip.configure(message)

    def link_lost(self) -> None:
        """Without a backend no peer can be served; they come back through whoever has one."""
        log.warning("link_lost", sessions=len(self.connections))
        self.gossip.current = False
        self._close_port()
        for connection in list(self.connections.values()):
            connection.close("backend lost")

    def graph_records(self, first_sequence: int, deltas: Iterable[Delta]) -> None:
        self.gossip.records(first_sequence, deltas)

    def graph_current(self, sequence: int) -> None:
        self.gossip.snapshot_complete(sequence)
        if self.gossip.current and self._listener is None:
            self.runtime.spawn(self._open_port(), "listen")

    def verdicts(self, verdicts: tuple[tuple[int, int], ...]) -> None:
        for offer, number in verdicts:
            # a backend one release ahead may have reasons to refuse that we do not know
            self.gossip.verdict(offer, Verdict(number) if number in _VERDICTS else Verdict.UNSUITABLE)

    def start_sync(self, connection: PeerConnection) -> None:
        self.gossip.start_sync(connection)

    def status(self) -> Status:
        return Status(
            sessions=len(self.connections),
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            graph_sequence=self.gossip.graph.sequence,
        )

    async def _open_port(self) -> None:
        async with self._opening:
            if self._listener is None and self.gossip.current and self._config.listen:
                listener = await self.runtime.listen(
                    self._config.listen, lambda: PeerConnection(self), share_port=self._share_port
                )
                if not self._current():  # the link was lost meanwhile
                    listener.close()
                    return
                self._listener = listener
                log.info("listening", address=listener.address)
        if self.gossip.current:
            self.listening.set()

    def _current(self) -> bool:  # asked again after a wait
        return self.gossip.current

    def _close_port(self) -> None:
        self.listening.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # connections

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def opened(self, connection: PeerConnection) -> bool:
        self.connections[connection.number] = connection
        self.gossip.join(connection)
        return len(self.connections) <= self._config.max_connections

    def closed(self, connection: PeerConnection, cause: str) -> None:
        if self.connections.pop(connection.number, None) is not None:
            self.gossip.leave(connection)
            self.uplink.ended(connection, cause)

    def dial(self, message: Dial) -> None:
        self.runtime.spawn(self._dial(message), "dial")

    async def _dial(self, message: Dial) -> None:
        def connection() -> PeerConnection:
            return PeerConnection(self, dial=message.dial, first_act=message.act, address=message.address)

        try:
            async with asyncio.timeout(message.timeout_s):
                await self.runtime.connect(message.address, connection)
        except (OSError, TimeoutError, Refused) as error:
            self.uplink.dial_failed(message.dial, str(error) or "timeout")

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
            self.gossip.sweep()
            self.uplink.beat()
