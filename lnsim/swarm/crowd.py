"""The peers of a swarm: kept connected, pinged, listened to."""

import asyncio
from itertools import islice
from typing import Protocol

from lnsim.swarm.connection import Connection, Traffic
from lnsim.swarm.dialler import MAX_BACK_OFF_S, Dialler
from lnsim.swarm.peer import LightPeer
from lnsim.swarm.pings import SWEEP_S, Pings
from lnsim.swarm.stamp import stamped_s
from lnsim.swarm.sync import EVER, Ids, Sync
from node.errors import MalformedMessage
from node.peer.handshake import Initiator
from node.runtime.runtime import Runtime
from node.wire import bolt1
from node.wire.bolt7 import GossipTimestampFilter
from node.wire.codec import encode
from node.wire.features import Feature, Features

# What any Lightning node takes; of all this a light peer does the first two and gossip.
FEATURES = Features.of(
    optional=(
        Feature.OPTION_DATA_LOSS_PROTECT,
        Feature.GOSSIP_QUERIES,
        Feature.VAR_ONION_OPTIN,
        Feature.OPTION_STATIC_REMOTEKEY,
        Feature.PAYMENT_SECRET,
        Feature.OPTION_CHANNEL_TYPE,
    )
)
SECRET_SIZE = 32
MAX_DISMISSED_AT_ONCE = 100  # between two looks at everybody else

_NOTICES = {
    bolt1.Warning.number.to_bytes(2, "big"): "swarm.warnings",
    bolt1.Error.number.to_bytes(2, "big"): "swarm.errors",
}


class Recorder(Protocol):
    """Where figures go (`lnsim.metrics.recorder`)."""

    def count(self, name: str, by: int = 1) -> None: ...
    def observe(self, name: str, value: float) -> None: ...


class Place:
    """Where the node under test is, and what is said to it first."""

    def __init__(self, hub_id: bytes, chain_hash: bytes) -> None:
        self.hub_id = hub_id
        self.chain_hash = chain_hash
        self.init = encode(bolt1.Init(b"", FEATURES.to_bytes(), networks=chain_hash))

    def handshake(self, runtime: Runtime, secret: bytes) -> Initiator:
        return Initiator(secret, runtime.entropy(SECRET_SIZE), self.hub_id)

    def filter(self, first_timestamp: int, timestamp_range: int = EVER) -> bytes:
        return encode(GossipTimestampFilter(self.chain_hash, first_timestamp, timestamp_range))


class LightCrowd:
    """Implements `peer.Crowd`. Every peer in it reconnects by itself until it is dismissed."""

    def __init__(
        self,
        runtime: Runtime,
        recorder: Recorder,
        place: Place,
        dialler: Dialler,
        *,
        ping_interval_s: float,
        listens: bool,
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._place = place
        self._dialler = dialler
        self._pings = Pings(ping_interval_s, runtime.random)
        for figure in ("ping.answered", "ping.late", "swarm.lost", "swarm.refused"):
            recorder.count(figure, 0)  # told also where there is none
        self._listens = listens
        self._sweeping: asyncio.Task[None] | None = None
        self.peers: list[LightPeer] = []
        self.traffic = Traffic()
        self.pings = self.pongs = self.late_pongs = 0
        self.sessions = 0  # peers past their init messages
        self._changed = asyncio.Event()

    # who is in it

    async def reached(self, sessions: int) -> None:
        """Wait until so many are connected."""
        while self.sessions < sessions:
            self._changed.clear()
            await self._changed.wait()

    def ready(self) -> list[LightPeer]:
        """Everybody who is connected now."""
        return [peer for peer in self.peers if peer.session is not None]

    def add(self) -> LightPeer:
        """One more, with keys of its own, on its way in."""
        if self._sweeping is None:
            self._sweeping = self._runtime.spawn(self._sweep(), "pings")
        peer = LightPeer(self, self._runtime.entropy(SECRET_SIZE))
        self.peers.append(peer)
        self._dialler.dial(peer)
        return peer

    def replace_one(self) -> bool:
        """One of those who are connected leaves, and a new one comes; False where nobody is."""
        if not self.sessions:
            return False
        place = self._runtime.random.randrange(len(self.peers))
        while self.peers[place].session is None:
            place = (place + 1) % len(self.peers)
        self.peers[place].dismiss()
        self.peers[place] = self.peers[-1]
        self.peers.pop()
        self.add()
        return True

    async def shrink(self, count: int) -> None:
        """Dismiss the last ones, until so many are left."""
        leaving = iter(self.peers[count:])
        del self.peers[count:]
        while batch := list(islice(leaving, MAX_DISMISSED_AT_ONCE)):
            for peer in batch:
                peer.dismiss()
            await asyncio.sleep(0)

    def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    # what happens to them

    def connection(self, peer: LightPeer, settled: asyncio.Future[None]) -> Connection:
        peer.since_s = self._runtime.monotonic()
        handshake = self._place.handshake(self._runtime, peer.secret)
        return Connection(peer, self.traffic, handshake, self._place.init, settled)

    def joined(self, peer: LightPeer) -> None:
        now_s = self._runtime.monotonic()
        self.sessions += 1
        self._changed.set()
        if peer.lost_s is None:
            self._recorder.observe("handshake", now_s - peer.since_s)
        else:
            self._recorder.observe("reconnect", now_s - peer.lost_s)
        peer.lost_s, peer.since_s = None, now_s
        if self._listens:
            self.listen(peer)

    def listen(self, peer: LightPeer) -> None:
        """Ask for gossip from now on."""
        if peer.session is not None:
            peer.session.send((self._place.filter(int(self._runtime.now())),))

    def begin_sync(self, peer: LightPeer, ids: Ids | None, messages: int | None) -> Sync | None:
        """Ask for the whole graph; None where the peer is gone, or at it already."""
        if peer.session is None or peer.sync is not None:
            return None
        peer.sync = Sync(self._place.chain_hash, self._runtime.monotonic(), messages, ids)
        peer.session.send(peer.sync.start())
        return peer.sync

    def end_sync(self, peer: LightPeer, sync: Sync) -> None:
        """Back to what it heard before: what is new, or nothing."""
        if peer.sync is not sync:
            return
        peer.sync = None
        if self._listens:
            self.listen(peer)
        elif peer.session is not None and not sync.by_queries:
            peer.session.send((self._place.filter(EVER, 0),))

    def left(self, peer: LightPeer, was_ready: bool) -> None:
        self.sessions -= was_ready
        if not peer.wanted:
            return
        now_s = self._runtime.monotonic()
        # A node that hangs up on everybody as soon as they are in must not be hammered.
        steady = was_ready and now_s - peer.since_s > MAX_BACK_OFF_S
        peer.failures = 0 if steady else peer.failures + 1
        if was_ready:
            peer.lost_s = now_s
        self._recorder.count("swarm.lost" if was_ready else "swarm.refused")
        self._dialler.dial_again(peer)

    def answered(self, ping_sent_s: float, as_asked: bool) -> None:
        self.pongs += 1
        self._recorder.count("ping.answered" if as_asked else "ping.wrong")
        self._recorder.observe("ping", self._runtime.monotonic() - ping_sent_s)

    def gossip(self, peer: LightPeer, raw: bytes) -> None:
        if peer.sync is not None:
            self._sync(peer, raw)
        elif (sent_s := stamped_s(raw)) is not None:
            if sent_s:
                self._propagated(peer, sent_s)
            else:
                self._recorder.count("gossip.invalid_received")
        elif (name := _NOTICES.get(raw[:2])) is not None:
            self._recorder.count(name)

    def _sync(self, peer: LightPeer, raw: bytes) -> None:
        assert peer.sync is not None
        assert peer.session is not None
        try:
            reply = peer.sync.receive(raw, self._runtime.monotonic())
        except MalformedMessage:
            peer.session.abort()
            return
        if reply is not None:
            peer.session.send((reply,))

    def _propagated(self, peer: LightPeer, sent_s: float) -> None:
        took_s = self._runtime.now() - sent_s
        # what was sent before it came is the backlog of its filter
        if took_s <= self._runtime.monotonic() - peer.since_s:
            self._recorder.observe("gossip.propagation", max(took_s, 0.0))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = self._runtime.monotonic()
            for connection in self._pings.late(now_s):
                self.late_pongs += 1
                self._recorder.count("ping.late")
                connection.abort()
            self.pings += self._pings.sweep(self.peers, now_s)
