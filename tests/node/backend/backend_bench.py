"""A real backend over a real database and the embedded chain, with a scripted frontend and peers that run the other
half of every channel. All on one loop, without threads or sockets, so that a crash can be placed exactly.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable

from lnsim.chain.embedded import EmbeddedNode
from node.backend.backend import Backend
from node.backend.identity import FEATURES
from node.backend.links import FrontendLink
from node.backend.sqlite_store import SqliteStore
from node.backend.store import Store
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import Channel, Phase, decode, encode
from node.channel.opening import open_incoming, open_outgoing, output_script
from node.channel.parameters import LocalParams, OpenRequest, Policy, Terms, negotiated
from node.channel.step import step
from node.crypto.derivation import channel_keys
from node.crypto.hashes import sha256
from node.crypto.keys import public_key
from node.link import frames
from node.link import messages as lm
from node.peer.handshake import Initiator
from node.runtime.config import BackendConfig, ChannelConfig
from node.wire import bolt1, bolt2, codec
from node.wire.bolt7 import AnnouncementSignatures

QUIET_TURNS = 10  # turns of the loop without anything new: everything has come to rest
MAX_TURNS = 100_000
START_S = 1_760_000_000.0  # the engine refuses blocks of the future
CONFIG = ChannelConfig(minimum_depth=1, max_pending_per_peer=2, max_pending=4)
NEGOTIATED = negotiated(FEATURES, FEATURES)


class Crash(Exception):  # noqa: N818 - a power cut, nobody's error
    """The process ends here."""


class BenchRuntime:
    """Everything inline, the clock by hand, chance from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.time_s = START_S
        self.failures: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def spawn(self, work, name):
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def run_blocking(self, lane, work):
        await asyncio.sleep(0)
        return work()

    async def listen(self, address, factory, *, share_port=False, tls=None):
        return Listener()

    async def connect(self, address, factory):
        raise OSError("nobody is there")

    async def drop(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Listener:
    address = "nowhere"

    def close(self) -> None:
        pass


class Wire:
    """The backend's end of a link's transport; what is written waits in `frames`."""

    def __init__(self) -> None:
        self.frames: deque[tuple[int, bytes]] = deque()
        self.reader = frames.FrameReader()
        self.closed = False
        self.bytes_written = 0

    def get_extra_info(self, name: str) -> None:
        """A Unix socket has nothing to tell."""

    def write(self, data: bytes) -> None:
        self.bytes_written += len(data)
        self.frames.extend(self.reader.receive(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abort = close


class Frontend:
    """A frontend that does as the test says; hands peers' messages to and fro."""

    def __init__(self, bench: "Bench", name: str = "f1", *, hello: bool = True, protocol: int = 1) -> None:
        self.bench, self.wire, self.name = bench, Wire(), name
        self.link: FrontendLink = bench.backend._link()
        self.link.connection_made(self.wire)
        self.controls: list[lm.ToFrontend] = []
        self.sessions: dict[int, Peer] = {}
        self.sequences: dict[int, int] = {}
        if hello:
            self.tell(lm.Hello(1, protocol, name, "test"))

    def tell(self, message: lm.Control) -> None:
        self.raw(frames.control(message))

    def raw(self, data: bytes) -> None:
        if not self.wire.closed:
            self.link.data_received(data)

    def message(self, number: int, raw: bytes) -> None:
        self.sequences[number] = self.sequences.get(number, 0) + 1
        self.raw(frames.peer(number, self.sequences[number], raw))

    def take(self) -> bool:
        """Look at what the backend wrote; whether there was anything."""
        any_ = bool(self.wire.frames)
        while self.wire.frames:
            kind, body = self.wire.frames.popleft()
            if kind == frames.CONTROL:
                self._control(frames.decode_to_frontend(body))
            elif kind == frames.PEER:
                number, _, raw = frames.split_peer(body)
                if peer := self.sessions.get(number):
                    peer.receive(raw)
        return any_

    def _control(self, message: lm.ToFrontend) -> None:
        self.controls.append(message)
        if isinstance(message, lm.CloseSession) and message.session in self.sessions:
            peer = self.sessions.pop(message.session)
            if message.message:
                peer.goodbyes.append(codec.decode(message.message))
            if peer.place == (self, message.session):
                peer.disconnect()

    def heard(self, kind: type) -> list:
        return [message for message in self.controls if isinstance(message, kind)]

    def last(self, kind: type):
        self.take()
        return self.heard(kind)[-1]

    def lose(self) -> None:
        """The process is killed."""
        self.wire.closed = True
        self.link.connection_lost(None)
        for peer in self.sessions.values():
            if peer.place and peer.place[0] is self:
                peer.disconnect()
        self.sessions.clear()


class Half:
    """A peer's half of a channel."""

    def __init__(self, channel: Channel, keys) -> None:
        self.channel, self.keys = channel, keys


class Peer:
    """Another node: answers everything with its own `step`; `on_htlc` decides about what it receives."""

    def __init__(self, name: str, chain: EmbeddedNode) -> None:
        self.name, self.chain = name, chain
        self.secret = sha256(name.encode())
        self.node_id = public_key(self.secret)
        self.halves: list[Half] = []
        self.place: tuple[Frontend, int] | None = None
        self.outbox: deque[bytes] = deque()
        self.log: list[fx.Effect] = []
        self.heard: list[codec.Message] = []
        self.goodbyes: list[codec.Message] = []
        self.answers: dict[bytes, Callable[[int], ev.Event]] = {}  # by payment hash
        self.policy = Policy()
        self.receives: list[tuple[int, bytes]] = []
        self.accepts = True

    @property
    def half(self) -> Half:
        return self.halves[-1]

    @property
    def channel(self) -> Channel:
        return self.halves[-1].channel

    def terms(self, node_id: bytes) -> Terms:
        params = LocalParams(
            chain_hash=self.chain_hash, shutdown_script=b"\0\x14" + bytes(20), minimum_depth=1
        )
        return Terms(
            remote_node_id=node_id,
            params=params,
            features=NEGOTIATED,
            alias=(0x700000 << 40) + len(self.halves) + int.from_bytes(self.node_id[1:4], "big"),
            height=self.chain.chain.height,
        )

    chain_hash = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")

    def keys(self):
        return channel_keys(sha256(b"seed" + self.secret), len(self.halves), self.secret)

    def open(self, node_id: bytes, **changes) -> None:
        request = OpenRequest(
            **{
                "command_id": 1,
                "temporary_channel_id": sha256(self.secret + bytes([len(self.halves)])),
                "funding_sat": 1_000_000,
                "push_msat": 400_000_000,
                "feerate_per_kw": 2_500,
                "announce": False,
            }
            | changes
        )
        keys = self.keys()
        channel, effects = open_outgoing(request, self.terms(node_id), keys, self.policy)
        assert channel is not None, effects
        self.halves.append(Half(channel, keys))
        self.take(self.half, effects)

    def do(self, half: Half, event: ev.Event) -> fx.Effects:
        half.channel, effects = step(half.channel, event, half.keys, self.policy)
        self.take(half, effects)
        return effects

    def take(self, half: Half, effects: fx.Effects) -> None:
        self.log += effects
        for effect in effects:
            match effect:
                case fx.Send(message):
                    self.outbox.append(codec.encode(message))
                case fx.HtlcReady(htlc):
                    self.receives.append((htlc.id, htlc.payment_hash))
                    if answer := self.answers.get(htlc.payment_hash):
                        self.do(half, answer(htlc.id))
                case fx.Fund(script, amount_sat):
                    self.funding = (half, script, amount_sat)

    async def fund(self) -> None:
        """The wallet's part of our own channel."""
        half, script, amount_sat = self.funding
        made = await self.chain.client("").fund(script, amount_sat, 2_500)
        self.do(half, ev.Funded(made.tx, made.output_index))
        self.funding_tx = made.tx

    def receive(self, raw: bytes) -> None:
        message = codec.decode(raw)
        self.heard.append(message)
        if isinstance(message, bolt2.OpenChannel):
            if not self.accepts:
                return
            keys = self.keys()
            channel, effects = open_incoming(message, self.terms(self.place_node_id), keys, self.policy)
            assert channel is not None, effects
            self.halves.append(Half(channel, keys))
            self.take(self.half, effects)
            return
        ids = (getattr(message, "channel_id", None), getattr(message, "temporary_channel_id", None))
        for half in self.halves:
            known = half.channel.channel_id in ids or ids[0] == bolt1.ALL_CHANNELS
            if known and not isinstance(message, AnnouncementSignatures):
                self.do(half, ev.Received(message))

    @property
    def place_node_id(self) -> bytes:
        assert self.place is not None
        return self.place[0].bench.backend.node_id

    def connect_to(self, place: tuple[Frontend, int]) -> None:
        self.place = place
        for half in self.halves:
            if half.channel.phase is not Phase.FORGOTTEN:
                self.do(half, ev.Connected(NEGOTIATED))

    def disconnect(self) -> None:
        self.place = None
        self.outbox.clear()
        for half in self.halves:
            self.do(half, ev.Disconnected())

    def pump(self) -> bool:
        """Send what there is to send; whether there was anything."""
        for half in self.halves:
            if half.channel.wants_to_sign and self.place is not None:
                self.do(half, ev.Sign())
        sent = bool(self.outbox)
        while self.outbox and self.place is not None:
            raw = self.outbox.popleft()
            frontend, number = self.place
            frontend.message(number, raw)
        self.outbox.clear()
        return sent

    def told(self, kind: type) -> list:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def snapshot(self):
        return [(encode(half.channel), half.keys) for half in self.halves]

    def restore(self, snapshot) -> None:
        self.halves = [Half(decode(data), keys) for data, keys in snapshot]
        for each in (self.outbox, self.log, self.heard, self.goodbyes, self.receives):
            each.clear()
        self.place = None


class FastStore(SqliteStore):
    """The disk is trusted here: what is tested is the order of things, not the kernel."""

    def __init__(self, path) -> None:
        super().__init__(path)
        self._db.execute("PRAGMA synchronous=OFF")


class Bench:
    """One backend, its frontends and its peers."""

    def __init__(self, directory, chain: EmbeddedNode, config: ChannelConfig = CONFIG, **changes) -> None:
        self.directory, self.chain, self.config = directory, chain, config
        self.changes = {"reconnect": False} | changes
        self.frontends: list[Frontend] = []
        self.peers: list[Peer] = []
        self.runtime = BenchRuntime()
        self.backend: Backend
        self._numbers = 0

    async def start(self, store: Store | None = None, **options) -> "Bench":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.runtime = BenchRuntime(self.runtime.random.getrandbits(64))
        store = store or FastStore(self.directory / "db.sqlite")
        config = BackendConfig(data_dir=str(self.directory), channels=self.config, **self.changes)
        self.hints = self.chain.hints()
        client = self.chain.client("")
        self.backend = Backend(self.runtime, config, client, store, "test", self.hints, **options)
        await self.backend.start()
        return self

    def frontend(self, name: str = "f1", *, hello: bool = True, protocol: int = 1) -> Frontend:
        self.frontends.append(Frontend(self, name, hello=hello, protocol=protocol))
        return self.frontends[-1]

    def peer(self, name: str) -> Peer:
        self.peers.append(Peer(name, self.chain))
        return self.peers[-1]

    async def drop(self) -> None:
        """As SIGKILL would: nothing more is decided, stored or sent."""
        for frontend in self.frontends:
            frontend.take()  # what is on its way arrives all the same
            frontend.wire.closed = True
        for peer in self.peers:
            if peer.place:
                peer.disconnect()
        self.frontends.clear()
        await self.runtime.drop()
        self.hints.close()
        self.backend.store.close()

    async def handshake(self, peer: Peer, frontend: Frontend) -> int:
        """BOLT 8 through the frontend; the session's number. The peer is not ready yet."""
        self._numbers += 1
        number = self._numbers
        initiator = Initiator(peer.secret, self.runtime.entropy(32), self.backend.node_id)
        frontend.tell(lm.HandshakeStarted(number, "203.0.113.1:9735", initiator.act_one()))
        await self.settle()
        act_three = initiator.receive(frontend.last(lm.Act).act)
        frontend.tell(lm.Act(number, act_three))
        await self.settle()
        assert frontend.last(lm.Established).session == number
        return number

    async def connect(self, peer: Peer, frontend: Frontend) -> int:
        number = await self.handshake(peer, frontend)
        frontend.sessions[number] = peer
        init = codec.encode(bolt1.Init(b"", FEATURES.to_bytes(), networks=self.backend.chain_hash))
        frontend.tell(lm.SessionReady(number, init, "203.0.113.1:9735"))
        peer.connect_to((frontend, number))
        return number

    def moved(self) -> bool:
        frontends = [frontend.take() for frontend in self.frontends]
        return any([*frontends, *[peer.pump() for peer in self.peers]])

    async def settle(self) -> None:
        """Let everyone say what they have to say."""
        quiet = 0
        for _ in range(MAX_TURNS):
            await asyncio.sleep(0)
            quiet = 0 if self.moved() or not self.backend.journal._idle.is_set() else quiet + 1
            if quiet >= QUIET_TURNS or self.runtime.failures:
                return
        raise AssertionError("they never come to rest")

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(MAX_TURNS):
            self.moved()
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never happened")

    async def open_from(self, peer: Peer, **changes) -> None:
        """A channel that the peer opens, ready for use."""
        peer.open(self.backend.node_id, **changes)
        await self.settle()
        await peer.fund()
        await self.settle()
        await self.chain.client("").send_raw_transaction(peer.funding_tx)
        await self._confirm(peer)

    async def open_to(self, peer: Peer, funding_sat: int = 1_000_000, push_msat: int = 300_000_000) -> None:
        opening = asyncio.ensure_future(
            self.backend.commands.open(
                node_id=peer.node_id.hex(), funding_sat=funding_sat, push_msat=push_msat, announce=False
            )
        )
        await self.until(opening.done)
        opening.result()
        await self._confirm(peer)

    async def _confirm(self, peer: Peer) -> None:
        record = self.record(peer)
        await self.settle()
        self.chain.mine(1)
        await self.until(lambda: record.channel.short_channel_id is not None)
        scid, half = record.channel.short_channel_id, peer.half
        script = output_script(half.channel)
        peer.do(
            half, ev.FundingConfirmed(scid >> 40, scid >> 16 & 0xFFFFFF, script, half.channel.funding_sat)
        )
        peer.do(half, ev.Block(self.chain.chain.height))
        await self.settle()
        assert record.channel.phase is Phase.NORMAL, record.channel.phase

    def record(self, peer: Peer):
        return self.backend.channels.of_peer(peer.node_id)[-1]


def assert_agree(record, half: Half) -> None:
    """Both ends at rest hold the same commitments and no HTLC."""
    for ours, theirs in ((record.channel, half.channel), (half.channel, record.channel)):
        assert ours.remote_next is None
        assert not ours.offered
        assert not ours.received
        assert ours.local_commit.number == theirs.remote_commit.number
        assert ours.local_commit.txid == theirs.remote_commit.txid
        assert (ours.local_msat, ours.remote_msat) == (theirs.remote_msat, theirs.local_msat)
