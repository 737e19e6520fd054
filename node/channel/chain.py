"""What the chain does to a channel: the funding confirmed and spent, HTLCs that come due, depth reached."""

from msgspec.structs import replace

from node.bitcoin import transaction
from node.channel import events
from node.channel.effects import Closed, Effects, ForceClosed, Store
from node.channel.failing import end_by_force, force_close, forget
from node.channel.model import ENDED, OPENING, Channel, Fulfilled, Phase, Spent, State
from node.channel.opening import output_script
from node.channel.parameters import Policy
from node.crypto.derivation import ChannelKeys
from node.crypto.hashes import sha256

_LOW_24_BITS = (1 << 24) - 1


def funding_confirmed(ch: Channel, event: events.FundingConfirmed) -> tuple[Channel, Effects]:
    """The output is what was agreed, or there is no channel."""
    if ch.phase in OPENING or ch.phase in {Phase.CLOSED, Phase.FORGOTTEN} or ch.funding is None:
        return ch, ()
    if (event.script, event.amount_sat) != (output_script(ch), ch.funding_sat):
        return forget(ch, "the funding output is not what was agreed")
    funding = replace(ch.funding, height=event.height, tx_index=event.tx_index, tx=b"")
    return replace(ch, funding=funding, height=max(ch.height, event.height)), (Store(),)


def funding_unconfirmed(ch: Channel) -> tuple[Channel, Effects]:
    """A channel in use stays in use: its funding transaction is the one thing that both want mined."""
    if ch.funding is None or ch.ready_sent:
        return ch, ()
    return replace(ch, funding=replace(ch.funding, height=0)), (Store(),)


def funding_spent(ch: Channel, event: events.FundingSpent) -> tuple[Channel, Effects]:
    """Whoever spent the funding output, and with what: from here on that transaction is the channel."""
    if ch.phase in OPENING or ch.phase in {Phase.CLOSED, Phase.FORGOTTEN}:
        return ch, ()
    kind = classify(ch, event.tx)
    ch = replace(ch, spent=Spent(kind, event.tx, event.height))
    if ch.phase in ENDED or (kind == "mutual" and ch.phase is Phase.CLOSING):
        return ch, (Store(),)
    if kind == "mutual":
        return replace(ch, phase=Phase.CLOSING), (Store(),)
    reason = f"the funding output was spent by a transaction of kind {kind}"
    after, dropped = end_by_force(ch, Phase.FORCE_CLOSED, reason)
    return after, (Store(), *dropped, ForceClosed(reason))


def classify(ch: Channel, tx: bytes) -> str:
    """What the transaction is that spends the funding output."""
    txid = transaction.txid(tx)
    known = (
        ("local", ch.local_commit),
        ("remote", ch.remote_commit),
        ("remote_next", ch.remote_next),
    )
    for kind, commit in known:
        if commit is not None and commit.txid == txid:
            return kind
    number = commitment_number(ch, tx)
    if number is None:
        return "mutual" if _is_close(ch, tx) else "unknown"
    if ch.remote_commit is not None and number < ch.remote_commit.number:
        return "revoked"
    return "unknown"


def commitment_number(ch: Channel, tx: bytes) -> int | None:
    """The number hidden in a commitment (BOLT 3); None where it is another kind of transaction."""
    parsed = transaction.parse(tx)
    sequence = parsed.inputs[0].sequence
    if sequence >> 24 != 0x80 or parsed.locktime >> 24 != 0x20:
        return None
    opener, accepter = (ch.local, ch.remote) if ch.is_opener else (ch.remote, ch.local)
    factor = int.from_bytes(sha256(opener.payment_basepoint + accepter.payment_basepoint)[-6:], "big")
    return ((sequence & _LOW_24_BITS) << 24 | parsed.locktime & _LOW_24_BITS) ^ factor


def _is_close(ch: Channel, tx: bytes) -> bool:
    """A close of ours, or one that the peer completed and did not tell us of."""
    if ch.closing is None:
        return False
    known = {output.script for close in ch.closing.txs for output in transaction.parse(close).outputs}
    known |= {ch.closing.local_script, ch.closing.remote_script}
    return all(output.script in known for output in transaction.parse(tx).outputs)


def block(ch: Channel, event: events.Block, keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    """A new height: what is due now."""
    ch = replace(ch, height=event.height)
    if ch.spent is not None and ch.spent.kind == "mutual" and ch.spent.height:
        # forgetting it earlier would let a reorganisation bring a revoked commitment back
        if ch.phase is not Phase.CLOSED and ch.height - ch.spent.height + 1 >= policy.close_depth:
            return replace(ch, phase=Phase.CLOSED), (Store(), Closed())
        return ch, ()
    if _is_never_funded(ch, policy):
        return forget(ch, "the funding transaction was not confirmed in time")
    if ch.phase in ENDED or ch.phase in OPENING or ch.phase is Phase.CLOSING:
        return ch, ()
    due = "" if ch.unproven else overdue(ch, policy)  # the peer may have what settles it
    return force_close(ch, keys, due) if due else (ch, ())


def _is_never_funded(ch: Channel, policy: Policy) -> bool:
    """BOLT 2, channel_ready: only the accepter may forget, since it has no money in the channel."""
    return (
        not ch.is_opener
        and ch.phase in {Phase.FUNDING_CONFIRMED, Phase.FORCE_CLOSED, Phase.SHUTTING_DOWN, Phase.CLOSING}
        and ch.spent is None
        and ch.funding is not None
        and not ch.funding.height
        and ch.height >= ch.funding.first_height + policy.forget_after_blocks
    )


def overdue(ch: Channel, policy: Policy) -> str:
    """Which HTLC forces the channel to the chain now, if any (BOLT 2, cltv_expiry_delta selection)."""
    for htlc in ch.offered.values():
        # a preimage is worth the same late; a failure that was never signed is worth nothing
        open_ended = htlc.state > State.ADD_SENT and not isinstance(htlc.resolution, Fulfilled)
        if open_ended and ch.height >= htlc.cltv_expiry + policy.offered_grace_blocks:
            return f"offered HTLC {htlc.id} has timed out"
    for htlc in ch.received.values():
        decided = isinstance(htlc.resolution, Fulfilled)
        if decided and ch.height >= htlc.cltv_expiry - policy.fulfill_deadline_blocks:
            return f"received HTLC {htlc.id} is fulfilled and about to time out"
    return ""
