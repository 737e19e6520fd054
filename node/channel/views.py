"""The running sums over a side's next commitment, and what they say about fees, dust and reserves.

A view moves by single HTLCs and never walks over all of them; only a new fee rate, which changes what is trimmed,
makes it count again.
"""

from msgspec import Struct
from msgspec.structs import replace

from node.bitcoin.fees import dust_feerate_per_kw, opener_cost_sat, trim_threshold_sat
from node.channel.model import SAT, Channel, Fulfilled, Htlc, State, View

# The HTLCs of one side's commitment, by state. Received by that side, then offered by it.
NEXT = (range(State.ADD_SENT, State.REMOVE_REVOKED), range(State.ADD_REVOKED, State.REMOVE_SENT))
SIGNED = (range(State.ADD_SIGNED, State.REMOVE_ACK_SIGNED), range(State.ADD_ACK_SIGNED, State.REMOVE_SIGNED))
# ... and of the commitment that the newest signature of the other side does not replace yet
UNREVOKED = (range(State.ADD_REVOKED, State.REMOVED), range(State.COMMITTED, State.REMOVE_REVOKED))
# ... and of the next commitment, as far as the one who signs it has acknowledged that it will hold them
ACKNOWLEDGED = (range(State.ADD_REVOKED, State.REMOVE_REVOKED), NEXT[1])


def next_feerate(ch: Channel, *, local: bool) -> int:
    """The fee rate of one side's next commitment: the newest update that it must already hold."""
    if len(ch.feerates) == 1:
        return ch.feerates[State.COMMITTED]
    first = State.ADD_REVOKED if ch.is_opener is local else State.ADD_SENT
    return min((state, rate) for state, rate in ch.feerates.items() if state >= first)[1]


class Dust(Struct, frozen=True):
    """HTLCs below these amounts have no output on one side's commitment (BOLT 3, trimmed outputs)."""

    offered_msat: int
    received_msat: int
    # ... or would not, should the fee rate rise: what counts as exposure
    exposed_offered_msat: int
    exposed_received_msat: int


def dust(ch: Channel, *, local: bool, feerate_per_kw: int | None = None) -> Dust:
    """The trimming of one side's next commitment, or of one at this fee rate."""
    rate = next_feerate(ch, local=local) if feerate_per_kw is None else feerate_per_kw
    limit_sat = (ch.local if local else ch.remote).dust_limit_sat
    raised = dust_feerate_per_kw(rate)
    anchors = ch.type.anchors
    # what we offer is offered by the holder on our commitment, and to the holder on theirs
    return Dust(
        trim_threshold_sat(limit_sat, anchors, rate, local) * SAT,
        trim_threshold_sat(limit_sat, anchors, rate, not local) * SAT,
        trim_threshold_sat(limit_sat, anchors, raised, local) * SAT,
        trim_threshold_sat(limit_sat, anchors, raised, not local) * SAT,
    )


def enter(view: View, htlc: Htlc, dust: Dust, *, offered: bool) -> View:
    """The view once the next commitment holds this HTLC."""
    return _move(view, htlc, dust, 1, offered=offered, local_pays=offered)


def leave(view: View, htlc: Htlc, dust: Dust, *, offered: bool) -> View:
    """The view once the next commitment is without this HTLC, its amount where it belongs."""
    return _move(view, htlc, dust, -1, offered=offered, local_pays=offered is not _is_fulfilled(htlc))


def return_to(view: View, htlc: Htlc, dust: Dust, *, offered: bool) -> View:
    """`leave`, undone."""
    return _move(view, htlc, dust, 1, offered=offered, local_pays=offered is not _is_fulfilled(htlc))


def _is_fulfilled(htlc: Htlc) -> bool:
    return isinstance(htlc.resolution, Fulfilled)


def _move(view: View, htlc: Htlc, dust: Dust, count: int, *, offered: bool, local_pays: bool) -> View:
    amount_msat = count * htlc.amount_msat
    exposed_below_msat = dust.exposed_offered_msat if offered else dust.exposed_received_msat
    exposed = htlc.amount_msat < exposed_below_msat
    trimmed = exposed and htlc.amount_msat < (dust.offered_msat if offered else dust.received_msat)
    return View(
        view.local_msat - amount_msat if local_pays else view.local_msat,
        view.remote_msat if local_pays else view.remote_msat - amount_msat,
        view.offered_msat + amount_msat if offered else view.offered_msat,
        view.offered_count + count if offered else view.offered_count,
        view.received_msat if offered else view.received_msat + amount_msat,
        view.received_count if offered else view.received_count + count,
        view.trimmed_count + count if trimmed else view.trimmed_count,
        view.dust_msat + amount_msat if exposed else view.dust_msat,
    )


def select(ch: Channel, states: tuple[range, range], *, local: bool) -> tuple[list[Htlc], list[Htlc]]:
    """The (offered, received) HTLCs that one side's commitment holds."""
    to_holder, by_holder = states
    in_offered, in_received = (by_holder, to_holder) if local else (to_holder, by_holder)
    return (
        [h for h in ch.offered.values() if in_offered.start <= h.state < in_offered.stop],
        [h for h in ch.received.values() if in_received.start <= h.state < in_received.stop],
    )


def recounted(ch: Channel, feerate_per_kw: int, *, local: bool, states: tuple[range, range] = NEXT) -> View:
    """The view of one side with what is trimmed, and what is exposed to that, at this fee rate."""
    limits = dust(ch, local=local, feerate_per_kw=feerate_per_kw)
    offered, received = select(ch, states, local=local)
    view = ch.local_view if local else ch.remote_view
    return replace(
        view,
        trimmed_count=sum(h.amount_msat < limits.offered_msat for h in offered)
        + sum(h.amount_msat < limits.received_msat for h in received),
        dust_msat=sum(h.amount_msat for h in offered if h.amount_msat < limits.exposed_offered_msat)
        + sum(h.amount_msat for h in received if h.amount_msat < limits.exposed_received_msat),
    )


def cost_msat(ch: Channel, feerate_per_kw: int, untrimmed_count: int) -> int:
    """What the opener pays for a commitment: the fee, and the anchors."""
    return opener_cost_sat(ch.type.anchors, feerate_per_kw, untrimmed_count) * SAT
