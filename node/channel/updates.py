"""The one table that moves updates on: who signs or revokes, and what that does to every HTLC and fee rate."""

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from node.channel import views
from node.channel.effects import (
    Effect,
    Effects,
    HtlcDropped,
    HtlcFailed,
    HtlcMalformed,
    HtlcReady,
    HtlcSettled,
)
from node.channel.model import Channel, Failed, Fulfilled, Htlc, Malformed, State, View

S = State


class Moves(Struct, frozen=True):
    """From state to state, for what we began (offered HTLCs, the opener's fee) and for what the peer began."""

    ours: dict[State, State]
    theirs: dict[State, State]


class Turn(Enum):
    """What moves updates on. The revocation of our own commitment always comes with the signature that causes it."""

    WE_SIGN = Moves(
        ours={S.ADD_SENT: S.ADD_SIGNED, S.REMOVE_REVOKED: S.REMOVE_ACK_SIGNED},
        theirs={S.ADD_REVOKED: S.ADD_ACK_SIGNED, S.REMOVE_SENT: S.REMOVE_SIGNED},
    )
    THEY_REVOKE = Moves(
        ours={S.ADD_SIGNED: S.ADD_REVOKED, S.REMOVE_ACK_SIGNED: S.REMOVED},
        theirs={S.ADD_ACK_SIGNED: S.COMMITTED, S.REMOVE_SIGNED: S.REMOVE_REVOKED},
    )
    THEY_SIGN = Moves(
        ours={S.ADD_REVOKED: S.COMMITTED, S.REMOVE_SENT: S.REMOVE_REVOKED},
        theirs={S.ADD_SENT: S.ADD_REVOKED, S.REMOVE_REVOKED: S.REMOVED},
    )


def advance(ch: Channel, turn: Turn) -> tuple[Channel, Effects]:
    """Move every update that this turn moves; tell what became irrevocable."""
    moves: Moves = turn.value
    offered = _moved(ch.offered, moves.ours)
    received = _moved(ch.received, moves.theirs)
    after = replace(
        ch,
        offered=_merged(ch.offered, offered),
        received=_merged(ch.received, received),
        unsigned_changes=turn is not Turn.WE_SIGN and ch.unsigned_changes,
    )
    if turn is Turn.THEY_REVOKE:
        after = replace(after, local_view=_moved_view(after, offered, received, local=True))
    elif turn is Turn.THEY_SIGN:
        after = replace(after, remote_view=_moved_view(after, offered, received, local=False))
    if len(ch.feerates) > 1:
        after = _moved_feerates(after, moves)
    if turn is Turn.THEY_SIGN and not after.unsigned_changes:
        after = replace(after, unsigned_changes=needs_signature(after))
    return after, _told(offered, received)


def needs_signature(ch: Channel) -> bool:
    """Whether any update waits for our commitment_signed; `unsigned_changes` remembers this."""
    ours, theirs = Turn.WE_SIGN.value.ours, Turn.WE_SIGN.value.theirs
    feerate_moves = ours if ch.is_opener else theirs
    return (
        any(h.state in ours for h in ch.offered.values())
        or any(h.state in theirs for h in ch.received.values())
        or any(state in feerate_moves for state in ch.feerates)
    )


def with_feerate(ch: Channel, feerates: dict[State, int]) -> Channel:
    """The channel with these fee rates under way, and its views counted again where theirs changed."""
    after = replace(ch, feerates=feerates)
    local, remote = (views.next_feerate(after, local=side) for side in (True, False))
    if local != views.next_feerate(ch, local=True):
        after = replace(after, local_view=views.recounted(after, local, local=True))
    if remote != views.next_feerate(ch, local=False):
        after = replace(after, remote_view=views.recounted(after, remote, local=False))
    return after


def _moved(htlcs: dict[int, Htlc], moves: dict[State, State]) -> list[Htlc]:
    moved = []
    for htlc in htlcs.values():
        state = moves.get(htlc.state)
        if state is State.ADD_REVOKED and htlc.state is State.ADD_SIGNED:
            # ours, and the peer has it for good: the onion need not be sent again
            moved.append(replace(htlc, state=state, onion=b""))
        elif state is not None:
            moved.append(replace(htlc, state=state))
    return moved


def _merged(htlcs: dict[int, Htlc], moved: list[Htlc]) -> dict[int, Htlc]:
    if not moved:
        return htlcs
    merged = htlcs | {htlc.id: htlc for htlc in moved}
    for htlc in moved:
        if htlc.state is State.REMOVED:
            del merged[htlc.id]
    return merged


def _moved_view(ch: Channel, offered: list[Htlc], received: list[Htlc], *, local: bool) -> View:
    """An acknowledged update enters the commitment of the one who sent it: ours when they revoke, else theirs."""
    view = ch.local_view if local else ch.remote_view
    dust = views.dust(ch, local=local)
    for htlcs, is_offered in ((offered, True), (received, False)):
        for htlc in htlcs:
            if htlc.state is State.ADD_REVOKED:
                view = views.enter(view, htlc, dust, offered=is_offered)
            elif htlc.state is State.REMOVE_REVOKED:
                view = views.leave(view, htlc, dust, offered=is_offered)
    return view


def _moved_feerates(ch: Channel, moves: Moves) -> Channel:
    table = moves.ours if ch.is_opener else moves.theirs
    feerates = {}
    # the oldest first, so that a newer one takes the place of an older one in the same state
    for state, rate in sorted(ch.feerates.items(), reverse=True):
        feerates[table.get(state, state)] = rate
    return with_feerate(ch, feerates)


def _told(offered: list[Htlc], received: list[Htlc]) -> Effects:
    effects: list[Effect] = []
    for htlc in offered:
        if htlc.state is State.REMOVED:
            match htlc.resolution:
                case Failed(reason):
                    effects.append(HtlcFailed(htlc.id, reason))
                case Malformed(sha256_of_onion, failure_code):
                    effects.append(HtlcMalformed(htlc.id, sha256_of_onion, failure_code))
    for htlc in received:
        if htlc.state is State.COMMITTED:
            effects.append(HtlcReady(htlc))
        elif htlc.state is State.REMOVED:
            effects.append(HtlcSettled(htlc.id, isinstance(htlc.resolution, Fulfilled)))
    return tuple(effects)


def forget_uncommitted(ch: Channel) -> tuple[Channel, Effects]:
    """BOLT 2, message retransmission: what no commitment_signed covers is undone when the link is lost."""
    ch = _return_removals(ch)
    local_view, remote_view = ch.local_view, ch.remote_view
    dropped = [h for h in ch.offered.values() if h.state is State.ADD_SENT]
    ignored = [h for h in ch.received.values() if h.state is State.ADD_SENT]
    for htlc in dropped:
        remote_view = views.leave(remote_view, htlc, views.dust(ch, local=False), offered=True)
    for htlc in ignored:
        local_view = views.leave(local_view, htlc, views.dust(ch, local=True), offered=False)
    ch = replace(
        ch,
        offered={h.id: h for h in ch.offered.values() if h.state is not State.ADD_SENT},
        received={h.id: h for h in ch.received.values() if h.state is not State.ADD_SENT},
        next_offered_id=ch.next_offered_id - len(dropped),
        next_received_id=ch.next_received_id - len(ignored),
        local_view=local_view,
        remote_view=remote_view,
    )
    ch = with_feerate(ch, {state: rate for state, rate in ch.feerates.items() if state is not State.ADD_SENT})
    ch = replace(ch, unsigned_changes=needs_signature(ch))
    return ch, tuple(HtlcDropped(htlc.id) for htlc in dropped)


def _return_removals(ch: Channel) -> Channel:
    """Undo removals that are not signed. A learned preimage and our own decisions stay."""
    offered, received = dict(ch.offered), dict(ch.received)
    local_view, remote_view = ch.local_view, ch.remote_view
    for htlc in ch.offered.values():
        if htlc.state is State.REMOVE_SENT:
            local_view = views.return_to(local_view, htlc, views.dust(ch, local=True), offered=True)
            learned = htlc.resolution if isinstance(htlc.resolution, Fulfilled) else None
            offered[htlc.id] = replace(htlc, state=State.COMMITTED, resolution=learned)
    for htlc in ch.received.values():
        if htlc.state is State.REMOVE_SENT:
            remote_view = views.return_to(remote_view, htlc, views.dust(ch, local=False), offered=False)
            received[htlc.id] = replace(htlc, state=State.COMMITTED)
    return replace(ch, offered=offered, received=received, local_view=local_view, remote_view=remote_view)
