"""Which sessions could go on under another backend: a row for each peer, true of one quiet moment of its channels.

The argument is in docs/decisions/0012: where there is a row, row and stored channels describe the same moment, all
channels were quiet in it, and the counts say which messages came before.
"""

import msgspec

from node.backend.channels import Channels
from node.backend.journal import Journal
from node.backend.session import Session
from node.backend.store import Statements, Store, put
from node.link.messages import HeldSession

PUT = put("sessions")
DELETE = "DELETE FROM sessions WHERE node_id = ?"
DELETE_ALL = "DELETE FROM sessions"


class Checkpoint(msgspec.Struct, frozen=True):
    """The peer's first `received` messages are dealt with, `sent` messages to it are decided on, nothing else is."""

    frontend_id: str
    number: int
    received: int
    sent: int


def refusal(checkpoint: Checkpoint, frontend_id: str, held: HeldSession) -> str | None:
    """Why a session that a frontend holds can't go on from a checkpoint; None where it can."""
    if (checkpoint.frontend_id, checkpoint.number) != (frontend_id, held.number):
        return "not the newest session"
    if held.received != checkpoint.sent:
        return f"out of step: the peer was sent {held.received} messages, the channels say {checkpoint.sent}"
    if not held.acked <= checkpoint.received <= held.sent:
        return f"out of step: {held.acked} to {held.sent} are held, the channels say {checkpoint.received}"
    return None


class Checkpoints:
    """Writes the rows. Takes part in every transaction that is closed, after all that may still store a channel."""

    def __init__(self, journal: Journal, channels: Channels) -> None:
        self._journal = journal
        self._channels = channels
        self._sessions: dict[bytes, Session] = {}
        self._held: dict[bytes, Checkpoint] = {}
        self._stored: dict[bytes, Checkpoint] = {}
        self._moved: dict[bytes, None] = {}
        self._due = False
        journal.before_commit(self._write)

    def load(self, store: Store) -> None:
        """What the backend before us left; every session in it may still be held by its frontend."""
        for node_id, *row in store.rows("SELECT node_id, frontend_id, number, received, sent FROM sessions"):
            assert isinstance(node_id, bytes)
            fields = dict(zip(Checkpoint.__struct_fields__, row, strict=True))
            self._stored[node_id] = self._held[node_id] = msgspec.convert(fields, Checkpoint)

    def restored(self) -> Statements:
        """After `load`, of an older copy: which sessions could go on is not known either, and each ends."""
        self._stored.clear()
        self._held.clear()
        return [(DELETE_ALL, [()])]

    @property
    def held(self) -> list[bytes]:
        """The peers whose sessions wait for their frontend."""
        return list(self._held)

    def begin(self, session: Session) -> None:
        """A peer's session is ready: the newest, whatever there was."""
        self._held.pop(session.node_id, None)
        self._sessions[session.node_id] = session
        session.ledger = self
        self.moved(session)

    def moved(self, session: Session) -> None:
        """A message was taken in, or decided on."""
        if self._sessions.get(session.node_id) is session:
            self._moved[session.node_id] = None

    def hold(self, session: Session) -> None:
        """The session's link is gone; from here on its counts stand still."""
        self._held[session.node_id] = _of(session)
        del self._sessions[session.node_id]
        self._moved[session.node_id] = None

    def of(self, node_id: bytes) -> Checkpoint | None:
        """From where a held session may go on."""
        return self._held.get(node_id)

    def forget(self, node_id: bytes) -> None:
        """The peer's session is over."""
        for kept in (self._sessions, self._held, self._moved):
            kept.pop(node_id, None)
        if self._stored.pop(node_id, None) is not None:
            self._journal.write(DELETE, node_id)

    def sweep(self) -> None:
        """Now and then: what changed no channel is written, too."""
        if self._moved:
            self._due = True
            self._journal.wake()

    def _write(self) -> None:
        """Everything of a peer that is quiet goes in together; a row that would no longer be true goes."""
        due, self._due = self._due, False
        if not due and self._journal.is_empty:
            return
        for node_id in list(self._moved):
            records = self._channels.of_peer(node_id)
            if all(record.channel.is_quiet for record in records):
                for record in records:
                    if record.is_dirty:
                        self._journal.store(record)
                self._put(node_id)
                del self._moved[node_id]
            elif node_id in self._stored and any(map(self._journal.is_stored, records)):
                del self._stored[node_id]
                self._journal.write(DELETE, node_id)

    def _put(self, node_id: bytes) -> None:
        session = self._sessions.get(node_id)
        checkpoint = self._held[node_id] if session is None else _of(session)
        if self._stored.get(node_id) != checkpoint:
            self._stored[node_id] = checkpoint
            self._journal.write(PUT, node_id, *msgspec.structs.astuple(checkpoint))


def _of(session: Session) -> Checkpoint:
    return Checkpoint(
        session.link.frontend_id, session.number, session.receive_window.sequence, session.decided
    )
