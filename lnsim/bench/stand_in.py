"""A backend without channels and chain, for benchmarks of frontends: real links, handshakes, journal and graph."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psutil

from lnsim.cluster_process import Child, command
from lnsim.graph_generator import REGTEST
from node.backend.graph_keeper import GraphKeeper
from node.backend.journal import Journal
from node.backend.links import FrontendLink
from node.backend.session import Session
from node.backend.sqlite_store import SqliteStore
from node.crypto.keys import public_key
from node.gossip.graph import Delta, Graph
from node.gossip.raw import ChannelFields
from node.gossip.validation import FundingOutput
from node.link.messages import Dialling, HeldSession, Limits
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Listener, SystemRuntime
from node.wire.features import Feature, Features

NODE_SECRET = bytes(31) + b"\x07"
HANDSHAKES_PER_S = 100_000  # the rate limit is not what is measured
FEATURES = Features.of(optional=(Feature.GOSSIP_QUERIES, Feature.GOSSIP_QUERIES_EX))


class NoChain:
    """What the graph asks of a chain, where nobody offers it an announcement."""

    async def funding_output(self, channel: ChannelFields) -> FundingOutput | None:
        return None

    def watch_public(self, channel: ChannelFields) -> None: ...


class StandIn:
    """The `Office` and the `Identity` of its links; sessions' messages for channels go nowhere."""

    epoch = 1
    node_id = public_key(NODE_SECRET)
    chain_hash = REGTEST
    features = FEATURES.to_bytes()
    # a session must outlive its benchmark without a word
    limits = Limits(ping_interval_s=600.0)
    dialling = Dialling()

    def __init__(self, runtime: SystemRuntime, directory: Path, deltas: Iterable[Delta]) -> None:
        self.runtime = runtime
        self.address = f"unix:{directory / 'link.sock'}"
        self.graph = Graph(REGTEST)
        for delta in deltas:
            self.graph.apply(delta)
        self.asked_s: float | None = None  # when the first frontend wanted the graph
        self._store = SqliteStore(directory / "stand-in.sqlite")
        journal = Journal(runtime, self._store)
        self._keeper = GraphKeeper(runtime, journal, self.graph, NoChain())
        self._handshakes = Handshakes(runtime, NODE_SECRET, HANDSHAKES_PER_S)
        self._listener: Listener | None = None

    @property
    def graph_sequence(self) -> int:
        return self.graph.sequence

    def may_speak(self) -> bool:
        return True

    async def start(self) -> None:
        self._listener = await self.runtime.listen(
            self.address, lambda: FrontendLink(self.runtime, self, self, self._handshakes)
        )

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._store.close()

    def established(self, session: Session) -> None: ...
    def ready(self, session: Session, init: bytes) -> None: ...
    def message(self, session: Session, raw: bytes) -> None: ...
    def ended(self, session: Session, cause: str) -> None: ...
    def lost(self, session: Session) -> None: ...
    def adopt(self, session: Session, held: HeldSession) -> str | None:
        return "not held"

    def presented(self, link: FrontendLink) -> None: ...
    def dial_failed(self, link: FrontendLink, dial: int, cause: str) -> None: ...
    def has_room(self, frontend_id: str) -> bool:
        return True

    def link_up(self, link: FrontendLink) -> None: ...

    def offered(self, link: FrontendLink, number: int, raw: bytes) -> None:
        self._keeper.offered(link, number, raw)

    def graph_wanted(self, link: FrontendLink, after: int) -> None:
        if self.asked_s is None:
            self.asked_s = self.runtime.monotonic()
        self._keeper.wanted(link, after)

    def link_down(self, link: FrontendLink) -> None:
        self._keeper.link_down(link)


class FrontendProcess:
    """`lnnode frontend` behind a stand-in."""

    def __init__(self, child: Child) -> None:
        assert child.pid is not None
        self.address: str = child.ready["listen"]
        self._process = psutil.Process(child.pid)

    @property
    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)


@contextlib.asynccontextmanager
async def frontend(stand_in: StandIn, directory: Path) -> AsyncIterator[FrontendProcess]:
    """A frontend process that is ready (its graph is current, its port open); gone afterwards."""
    config = {
        "id": "bench",
        "listen": "127.0.0.1:0",
        "backend": stand_in.address,
        "log": {"level": "warning"},
    }
    path = directory / "frontend.yaml"
    path.write_bytes(msgspec.yaml.encode(config))
    await stand_in.start()
    child = Child("frontend", [*command("lnnode"), "frontend", str(path)], directory)
    try:
        await child.start()
        yield FrontendProcess(child)
    finally:
        await child.stop()
        stand_in.stop()
