"""Who is connected, and what of their messages goes where.

One session counts for each peer, the newest; what a message is for is decided by its type and channel id. Whatever
a peer sends, it can end its own session or fail its own channel, and nothing else notices.
"""

import asyncio
from collections import Counter
from typing import Protocol

from node.backend.channels import Channels, Record
from node.backend.checkpoints import Checkpoints, refusal
from node.backend.greeting import MAX_FRONTENDS
from node.backend.journal import Journal
from node.backend.links import FrontendLink
from node.backend.placing import place
from node.backend.session import Session
from node.channel import events as ev
from node.channel.model import Link
from node.channel.parameters import negotiated
from node.errors import MalformedMessage, PeerFault, Refused
from node.link import frames
from node.link.messages import Dial, Dialling, HeldSession, StartSync
from node.peer.handshake import Initiator
from node.peer.notice import notice
from node.runtime import logs
from node.runtime.runtime import Runtime
from node.wire import bolt1, bolt2
from node.wire.bolt4 import OnionMessage
from node.wire.bolt7 import AnnouncementSignatures, ChannelUpdate
from node.wire.codec import Message, Unknown, decode, decode_as, encode
from node.wire.features import Features

MAX_DIALS = 256  # under way at once
DIAL_TIMEOUT_S = 20.0
HELD_TIMEOUT_S = (
    6.0  # for a frontend to come back: it tries twice a second, and 3 s at one that does not answer
)
REST_TIMEOUT_S = 2.0  # for exchanges of commitments to end before a stop: one takes a few round trips
REST_INTERVAL_S = 0.01

log = logs.get("switchboard")


class Peer:
    """What we hold of a peer that is connected or has channels."""

    __slots__ = ("address", "node_id", "session")

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        self.session: Session | None = None
        self.address = ""


class Opener(Protocol):
    """Takes channels that peers want to open."""

    def open_channel(self, session: Session, message: bolt2.OpenChannel) -> None: ...


class GossipOffice(Protocol):
    """Takes what concerns the graph."""

    def offered(self, link: FrontendLink, number: int, raw: bytes) -> None: ...
    def graph_wanted(self, link: FrontendLink, after: int) -> None: ...
    def link_down(self, link: FrontendLink) -> None: ...
    def private_update(self, record: Record, message: ChannelUpdate, raw: bytes) -> None: ...
    def peer_ready(self, session: Session) -> bool:
        """Whether to ask this peer for its gossip."""
        ...


class Switchboard:
    """Implements `links.Office` and the sessions' part of `channels.Surroundings`."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        channels: Channels,
        checkpoints: Checkpoints,
        features: Features,
        max_strangers: int,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._checkpoints = checkpoints
        self._features = features
        self._max_strangers = max_strangers
        self.peers: dict[bytes, Peer] = {}
        self.links: dict[str, FrontendLink] = {}
        self._dials: dict[int, tuple[FrontendLink, asyncio.Future[Session]]] = {}
        self._waiting: dict[bytes, list[asyncio.Future[Session]]] = {}
        self._next_dial = 0
        self._strangers: dict[bytes, None] = {}  # connected peers without channels, oldest first
        self.dialling = Dialling()
        # peers whose session a frontend may hold, and for how long we believe it
        self._held: dict[bytes, float] = {}
        self.opener: Opener
        self.gossip: GossipOffice
        journal.before_commit(self._seal_acks)
        journal.after_commit(self._flush_acks)

    @property
    def strangers(self) -> int:
        """Connected peers without channels."""
        return len(self._strangers)

    @property
    def dials(self) -> int:
        """Connections that are being made."""
        return len(self._dials)

    @property
    def held(self) -> Counter[str]:
        """Sessions that may be held for us, by the frontend that is waited for."""
        found = (self._checkpoints.of(node_id) for node_id in self._held)
        return Counter(checkpoint.frontend_id for checkpoint in found if checkpoint is not None)

    # sessions

    def peer(self, node_id: bytes) -> Peer:
        """A peer, connected or not."""
        return self.peers.get(node_id) or Peer(node_id)

    def session_of(self, node_id: bytes) -> Session | None:
        peer = self.peers.get(node_id)
        return None if peer is None else peer.session

    def established(self, session: Session) -> None:
        """The peer proved who it is; the frontend goes on with init."""

    def ready(self, session: Session, init: bytes) -> None:
        try:
            theirs = decode_as(bolt1.Init, init)
        except MalformedMessage as error:
            session.link.end_session(session, str(error))
            return
        session.features = Features.from_bytes(theirs.features) | Features.from_bytes(theirs.globalfeatures)
        peer = self.peers.setdefault(session.node_id, Peer(session.node_id))
        if peer.session is not None:  # the newest wins
            self._down(peer, peer.session)
            old, peer.session = peer.session, None
            old.link.end_session(old, "replaced")
        self._held.pop(session.node_id, None)
        records = self._up(peer, session)
        log.info(
            "peer_up",
            peer=session.node_id.hex(),
            session=session.name,
            address=session.address,
            channels=len(records),
        )
        self._channels.apply_all(records, ev.Connected(negotiated(self._features, session.features)))
        if self.gossip.peer_ready(session):
            session.link.write(frames.control(StartSync(session.number)))

    def _up(self, peer: Peer, session: Session) -> list[Record]:
        """The peer has a session, and whoever waits for one is told; its channels."""
        peer.session = session
        peer.address = session.address or peer.address
        self._checkpoints.begin(session)
        records = self._channels.of_peer(session.node_id)
        if not records:
            self._limit_strangers(session)
        for future in self._waiting.pop(session.node_id, []):
            if not future.done():
                future.set_result(session)
        return records

    def ended(self, session: Session, cause: str) -> None:
        peer = self.peers.get(session.node_id)
        if peer is None or peer.session is not session:
            return
        peer.session = None
        log.info("peer_down", peer=session.node_id.hex(), session=session.name, cause=cause)
        self._down(peer, session)
        if not self._channels.of_peer(session.node_id):
            self.peers.pop(session.node_id, None)

    def _down(self, peer: Peer, session: Session) -> None:
        self._strangers.pop(peer.node_id, None)
        self._checkpoints.forget(peer.node_id)
        self._channels.apply_all(self._channels.of_peer(peer.node_id), ev.Disconnected())

    def _limit_strangers(self, session: Session) -> None:
        """Peers without channels have a bounded number of places; the one that has been there longest goes."""
        self._strangers[session.node_id] = None
        if len(self._strangers) > self._max_strangers:
            oldest = next(iter(self._strangers))
            self.end_session(oldest, "too many peers without channels")

    def has_channel(self, node_id: bytes) -> None:
        """The peer is no stranger any more."""
        self._strangers.pop(node_id, None)

    def end_session(self, node_id: bytes, reason: str, message: bytes = b"") -> None:
        session = self.session_of(node_id)
        if session is not None:
            session.link.end_session(session, reason, message)

    # sessions that outlive their link, or a backend

    def resume(self) -> None:
        """After a restart, before the channels resume: whose frontend is waited for."""
        for node_id in self._checkpoints.held:
            if self._channels.is_quiet(node_id):
                self._hold(node_id)
            else:
                self._checkpoints.forget(node_id)

    def is_held(self, node_id: bytes) -> bool:
        """Whether the peer's session may be with a frontend that is not here at the moment."""
        return node_id in self._held

    def _hold(self, node_id: bytes) -> None:
        self._held[node_id] = self._runtime.monotonic() + HELD_TIMEOUT_S

    def lost(self, session: Session) -> None:
        """The link is gone. What is quiet, with nothing on its way, may go on where it is."""
        peer = self.peers.get(session.node_id)
        if peer is None or peer.session is not session:
            return
        if not (session.is_settled and self._channels.is_quiet(session.node_id)):
            self.ended(session, "link lost")
            return
        peer.session = None
        self._strangers.pop(peer.node_id, None)
        self._checkpoints.hold(session)
        self._hold(peer.node_id)
        self._channels.apply_all(self._channels.of_peer(peer.node_id), ev.Held())

    def adopt(self, session: Session, held: HeldSession) -> str | None:
        """The peer goes on as if nothing had been; or why that can't be (docs/decisions/0012)."""
        node_id = session.node_id
        checkpoint = self._checkpoints.of(node_id)
        if checkpoint is None or node_id not in self._held:
            return "not held"
        refused = refusal(checkpoint, session.link.frontend_id, held)
        held_all = all(record.channel.link is Link.HELD for record in self._channels.of_peer(node_id))
        if refused is None and not held_all:
            refused = "a channel has to be reestablished"
        if refused is None:
            try:
                theirs = decode_as(bolt1.Init, held.init)
            except MalformedMessage as error:
                refused = str(error)
        if refused is not None:
            log.info("not_adopted", peer=node_id.hex(), session=session.name, reason=refused)
            if checkpoint.number == held.number and checkpoint.frontend_id == session.link.frontend_id:
                self._give_up(node_id)
            return refused
        del self._held[node_id]
        session.features = Features.from_bytes(theirs.features) | Features.from_bytes(theirs.globalfeatures)
        session.resume(checkpoint.received, checkpoint.sent)
        records = self._up(self.peers.setdefault(node_id, Peer(node_id)), session)
        self._channels.apply_all(records, ev.Adopted())
        return None

    def presented(self, link: FrontendLink) -> None:
        """What this frontend should hold and did not present is over."""
        for node_id in list(self._held):
            checkpoint = self._checkpoints.of(node_id)
            if checkpoint is not None and checkpoint.frontend_id == link.frontend_id:
                self._give_up(node_id)

    def _give_up(self, node_id: bytes) -> None:
        del self._held[node_id]
        self._checkpoints.forget(node_id)
        self._channels.apply_all(self._channels.of_peer(node_id), ev.Disconnected())
        if not self._channels.of_peer(node_id):
            self.peers.pop(node_id, None)

    async def rest(self) -> None:
        """Before a stop: leave each session with its frontend as soon as it is quiet, within a time."""
        deadline_s = self._runtime.monotonic() + REST_TIMEOUT_S
        while self._runtime.monotonic() < deadline_s:
            sessions = [peer.session for peer in self.peers.values() if peer.session is not None]
            for session in sessions:
                if session.is_settled and self._channels.is_quiet(session.node_id):
                    session.link.freeze(session)
            if not any(peer.session is not None for peer in self.peers.values()):
                return
            await asyncio.sleep(REST_INTERVAL_S)

    def sweep(self) -> None:
        """Now and then: who is not back by now will not be."""
        self._checkpoints.sweep()
        now_s = self._runtime.monotonic()
        for node_id, until_s in list(self._held.items()):
            if now_s >= until_s:
                self._give_up(node_id)

    # messages

    def message(self, session: Session, raw: bytes) -> None:
        peer = self.peers.get(session.node_id)
        if peer is None or peer.session is not session:
            return
        self._checkpoints.moved(session)
        self._journal.wake()  # at least the acknowledgement goes out
        try:
            self._dispatch(session, raw)
        except MalformedMessage as error:
            self._expel(session, f"undecodable: {error}")
        except PeerFault as fault:
            self._expel(session, str(fault))
        except Exception:
            # A fault of ours that this peer's bytes brought to light: `step` is pure, so nothing has changed.
            log.exception("internal_error", peer=session.node_id.hex(), message_type=raw[:2].hex())
            self._expel(session, "internal error")

    def _expel(self, session: Session, reason: str) -> None:
        log.warning("peer_fault", peer=session.node_id.hex(), reason=reason)
        warning = encode(bolt1.Warning(bolt1.ALL_CHANNELS, reason.encode()[:200]))
        session.link.end_session(session, reason, warning)

    def _dispatch(self, session: Session, raw: bytes) -> None:
        message = decode(raw)
        match message:
            case Unknown() | OnionMessage():
                pass  # odd: may be ignored (BOLT 1)
            case bolt1.Error():
                self._error(session, message, raw)
            case bolt1.Warning():
                log.warning("peer_warning", peer=session.node_id.hex(), text=notice(raw))
            case bolt2.OpenChannel():
                self.opener.open_channel(session, message)
            case bolt2.AcceptChannel() | bolt2.FundingCreated():
                self._to_channel(session, message.temporary_channel_id, message)
            case ChannelUpdate():
                self._private_update(session, message, raw)
            case bolt2.ChannelMessage():
                self._to_channel(session, message.channel_id, message)
            case _:
                raise PeerFault(f"{type(message).__name__} is not for a backend")

    def _to_channel(self, session: Session, channel_id: bytes, message: Message) -> None:
        record = self._channels.find(session.node_id, channel_id)
        if record is not None:
            self._channels.apply(record, ev.Received(message))
        elif not isinstance(message, bolt2.Shutdown | AnnouncementSignatures | bolt2.ClosingSigned):
            # BOLT 1, error: naming a channel that we don't know fails that channel and no other
            session.post(self._journal, bolt1.Error(channel_id, b"unknown channel"))

    def _error(self, session: Session, message: bolt1.Error, raw: bytes) -> None:
        log.warning(
            "peer_error", peer=session.node_id.hex(), channel=message.channel_id.hex(), text=notice(raw)
        )
        if message.channel_id == bolt1.ALL_CHANNELS:
            records = self._channels.of_peer(session.node_id)
        else:
            found = self._channels.find(session.node_id, message.channel_id)
            records = [] if found is None else [found]
        self._channels.apply_all(records, ev.Received(message))

    def _private_update(self, session: Session, message: ChannelUpdate, raw: bytes) -> None:
        for record in self._channels.of_peer(session.node_id):
            channel = record.channel
            if message.short_channel_id in (channel.short_channel_id, channel.alias, channel.remote_alias):
                self.gossip.private_update(record, message, raw)

    def _seal_acks(self) -> None:
        for link in self.links.values():
            link.seal_acks()

    def _flush_acks(self) -> None:
        for link in self.links.values():
            link.flush_acks()

    # links

    def has_room(self, frontend_id: str) -> bool:
        return frontend_id in self.links or len(self.links) < MAX_FRONTENDS

    def link_up(self, link: FrontendLink) -> None:
        old = self.links.get(link.frontend_id)
        if old is not None and old is not link:
            old.let_go()  # the same frontend: it came back before we noticed that it was gone
            old.close()
        self.links[link.frontend_id] = link
        log.info("frontend_up", frontend=link.frontend_id, version=link.version)

    def link_down(self, link: FrontendLink) -> None:
        if self.links.get(link.frontend_id) is link:
            del self.links[link.frontend_id]
            log.warning("frontend_down", frontend=link.frontend_id)
        self.gossip.link_down(link)
        for dial in list(self._dials):
            self.dial_failed(link, dial, "frontend lost")

    def offered(self, link: FrontendLink, number: int, raw: bytes) -> None:
        self.gossip.offered(link, number, raw)

    def graph_wanted(self, link: FrontendLink, after: int) -> None:
        self.gossip.graph_wanted(link, after)

    # dialling

    async def connect(self, node_id: bytes, address: str, initiator: Initiator) -> Session:
        """A session with this peer, dialled by the frontend that has the most room for it. Raises Refused."""
        session = self.session_of(node_id)
        if session is not None:
            return session
        if len(self._dials) >= MAX_DIALS:
            raise Refused("too many connections are being made")
        link = place(self.links.values(), address, self.dialling)
        self._next_dial += 1
        dial = self._next_dial
        future: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._dials[dial] = (link, future)
        self._waiting.setdefault(node_id, []).append(future)
        link.dials[dial] = initiator
        link.write(frames.control(Dial(dial, node_id, address, initiator.act_one(), DIAL_TIMEOUT_S)))
        try:
            async with asyncio.timeout(2 * DIAL_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise Refused(f"{address} did not answer in time") from None
        finally:
            link.dials.pop(dial, None)
            self._dials.pop(dial, None)
            waiting = self._waiting.get(node_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(node_id, None)

    def dial_failed(self, link: FrontendLink, dial: int, cause: str) -> None:
        """A frontend gave up, or is gone; it speaks for its own dials alone."""
        owner, future = self._dials.get(dial, (None, None))
        if owner is link and future is not None and not future.done():
            future.set_exception(Refused(f"connection failed: {cause}"))

    def beat(self) -> None:
        """Once per interval: signs of life to and from every frontend."""
        for link in list(self.links.values()):
            link.beat()
