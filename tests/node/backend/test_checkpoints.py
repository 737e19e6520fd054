"""A checkpoint is true: wherever the store has one, the stored channels are those of that very moment, and quiet.

The channels are numbers, even ones quiet; a transaction is closed whenever the story says so.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from node.backend.checkpoints import DELETE, PUT, Checkpoint, Checkpoints
from node.backend.session import Session, SessionState

PEER = b"\x02" * 33
CHANNELS = 2


class Value:
    """A channel at one moment; told apart by identity, as frozen channels are."""

    def __init__(self, number: int) -> None:
        self.number, self.is_quiet = number, number % 2 == 0


class Record:
    def __init__(self) -> None:
        self.channel = self.stored = Value(0)

    @property
    def is_dirty(self) -> bool:
        return self.channel is not self.stored


class Journal:
    """One transaction after the other, each durable at once; `row` is the peer's, `history` all moments so far."""

    def __init__(self) -> None:
        self.batch: dict[Record, None] = {}
        self.rows: list = []
        self.row: Checkpoint | None = None

    def before_commit(self, hook) -> None:
        self.close_hook = hook

    def wake(self) -> None: ...

    def store(self, record: Record) -> None:
        self.batch[record] = None

    def is_stored(self, record: Record) -> bool:
        return record in self.batch

    @property
    def is_empty(self) -> bool:
        return not (self.batch or self.rows)

    def write(self, sql: str, *parameters) -> None:
        self.rows.append((sql, parameters))

    def commit(self) -> None:
        self.close_hook()
        for record in self.batch:
            record.stored = record.channel
        for sql, (_, *fields) in self.rows:
            assert sql in (PUT, DELETE)
            self.row = Checkpoint(*fields) if sql == PUT else None
        self.batch, self.rows = {}, []


class Link:
    frontend_id = "f1"


class World:
    def __init__(self) -> None:
        self.records = [Record() for _ in range(CHANNELS)]
        self.journal = Journal()
        self.checkpoints = Checkpoints(self.journal, self)
        self.session = Session(Link(), 7, "", 0.0, 1_000)
        self.session.node_id, self.session.state = PEER, SessionState.READY
        self.checkpoints.begin(self.session)
        self.moments: list[tuple[int, int, tuple[Value, ...]]] = []

    def of_peer(self, node_id: bytes) -> list[Record]:
        return self.records

    def act(self, moved: str, which: int, *, stored: bool) -> None:
        """A message that changes a channel, as the interpreter would have it."""
        record = self.records[which]
        record.channel = Value(record.channel.number + 1)
        if stored:
            self.journal.store(record)
        if moved == "in":
            self.session.receive_window.sequence += 1
            self.checkpoints.moved(self.session)
        else:
            self.session.decided += 1
            self.checkpoints.moved(self.session)

    def commit(self) -> None:
        values = tuple(record.channel for record in self.records)
        self.moments.append((self.session.receive_window.sequence, self.session.decided, values))
        self.journal.commit()

    def check(self) -> None:
        row = self.journal.row
        if row is None:
            return
        stored = tuple(record.stored for record in self.records)
        assert (row.received, row.sent, stored) in self.moments, "they are of one moment"
        assert all(value.is_quiet for value in stored), "and it was quiet"


STEPS = st.lists(
    st.tuples(st.sampled_from(["in", "out"]), st.integers(0, CHANNELS - 1), st.booleans())
    | st.sampled_from(["commit", "sweep"]),
    max_size=30,
)


@settings(max_examples=500)
@given(STEPS)
def test_wherever_there_is_a_row_it_is_true(steps) -> None:
    world = World()
    for step in steps:
        if step == "sweep":
            world.checkpoints.sweep()
        elif step == "commit":
            world.commit()
            world.check()
        else:
            moved, which, stored = step
            world.act(moved, which, stored=stored)


def test_two_messages_that_end_where_it_is_quiet_are_one_checkpoint() -> None:
    world = World()
    world.act("in", 0, stored=False)
    world.commit()
    assert world.journal.row is None
    world.act("in", 0, stored=True)
    world.commit()
    assert world.journal.row == Checkpoint("f1", 7, received=2, sent=0)


def test_a_channel_that_is_stored_while_another_is_not_quiet_ends_the_checkpoint() -> None:
    world = World()
    for _ in range(2):
        world.act("in", 0, stored=True)
    world.commit()
    assert world.journal.row is not None
    world.act("in", 1, stored=False)  # uncommitted, and not stored
    world.commit()
    assert world.journal.row is not None, "the store is as it was"
    for _ in range(2):
        world.act("in", 0, stored=True)
    world.commit()
    assert world.journal.row is None


def test_what_changes_no_channel_is_written_when_it_is_due() -> None:
    world = World()
    world.commit()
    assert world.journal.row is None, "nothing is synced for this alone"
    world.checkpoints.sweep()
    world.commit()
    assert world.journal.row == Checkpoint("f1", 7, 0, 0)


def test_a_session_that_is_over_leaves_no_row_and_an_older_one_moves_nothing() -> None:
    world = World()
    world.checkpoints.sweep()
    world.commit()
    newer = Session(Link(), 8, "", 0.0, 1_000)
    newer.node_id = PEER
    world.checkpoints.begin(newer)
    world.checkpoints.moved(world.session)
    world.checkpoints.sweep()
    world.commit()
    assert world.journal.row == Checkpoint("f1", 8, 0, 0)
    world.checkpoints.forget(PEER)
    world.commit()
    assert world.journal.row is None


def test_the_counts_of_a_held_session_stand_still() -> None:
    world = World()
    world.session.receive_window.sequence = 3
    world.checkpoints.hold(world.session)
    world.session.receive_window.sequence = 4
    world.checkpoints.moved(world.session)
    world.checkpoints.sweep()
    world.commit()
    assert world.journal.row == world.checkpoints.of(PEER) == Checkpoint("f1", 7, 3, 0)
