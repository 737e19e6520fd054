"""The commitment transactions of both sides, as node.bitcoin builds them from a channel's state."""

from msgspec import Struct

from node.bitcoin.commitment import (
    Commitment,
    HtlcOutput,
    Side,
    build_commitment,
    commitment_points,
    signed_commitment,
)
from node.channel import views
from node.channel.model import Channel, LocalCommit, RemoteCommit
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys, derive_public_key, derive_secret, per_commitment_point
from node.errors import PeerFault


class Balances(Struct, frozen=True):
    """The figures of one commitment."""

    feerate_per_kw: int
    local_msat: int
    remote_msat: int


def side(ch: Channel, *, local: bool) -> Side:
    """What never changes about one side's commitments."""
    assert ch.funding is not None, "commitments spend the funding output"
    holder, other = (ch.local, ch.remote) if local else (ch.remote, ch.local)
    opener, accepter = (ch.local, ch.remote) if ch.is_opener else (ch.remote, ch.local)
    return Side(
        anchors=ch.type.anchors,
        funding_txid=ch.funding.txid,
        funding_output_index=ch.funding.output_index,
        funding_sat=ch.funding_sat,
        holder_funding_point=holder.funding_pubkey,
        other_funding_point=other.funding_pubkey,
        holder_is_opener=ch.is_opener is local,
        opener_payment_basepoint=opener.payment_basepoint,
        accepter_payment_basepoint=accepter.payment_basepoint,
        other_payment_basepoint=other.payment_basepoint,
        to_self_delay=other.to_self_delay,
        dust_limit_sat=holder.dust_limit_sat,
    )


def next_balances(ch: Channel, *, local: bool) -> Balances:
    view = ch.local_view if local else ch.remote_view
    return Balances(views.next_feerate(ch, local=local), view.local_msat, view.remote_msat)


def build(
    ch: Channel, states: tuple[range, range], number: int, point: bytes, balances: Balances, *, local: bool
) -> Commitment:
    """One side's commitment with the HTLCs in these states."""
    holder, other = (ch.local, ch.remote) if local else (ch.remote, ch.local)
    points = commitment_points(
        point,
        holder.htlc_basepoint,
        other.htlc_basepoint,
        holder.delayed_payment_basepoint,
        other.revocation_basepoint,
    )
    offered, received = views.select(ch, states, local=local)
    htlcs = [HtlcOutput(local, h.amount_msat, h.payment_hash, h.cltv_expiry) for h in offered]
    htlcs += [HtlcOutput(not local, h.amount_msat, h.payment_hash, h.cltv_expiry) for h in received]
    ours, theirs = balances.local_msat, balances.remote_msat
    return build_commitment(
        side(ch, local=local),
        points,
        number,
        balances.feerate_per_kw,
        ours if local else theirs,
        theirs if local else ours,
        htlcs,
    )


def sign(
    ch: Channel, keys: ChannelKeys, commitment: Commitment, point: bytes
) -> tuple[bytes, tuple[bytes, ...]]:
    """Our signatures for the peer's commitment and its HTLC transactions."""
    htlc_secret = derive_secret(keys.htlc_base_secret, point) if commitment.htlcs else b""
    return (
        secp.sign(keys.funding_secret, commitment.sighash),
        tuple([secp.sign(htlc_secret, htlc.sighash) for htlc in commitment.htlcs]),
    )


def check_signatures(
    ch: Channel, commitment: Commitment, point: bytes, signature: bytes, htlc_signatures: tuple[bytes, ...]
) -> None:
    """PeerFault unless the peer's signatures make our commitment and all its HTLC transactions valid."""
    if len(htlc_signatures) != len(commitment.htlcs):
        raise PeerFault(f"{len(htlc_signatures)} htlc signatures for {len(commitment.htlcs)} HTLC outputs")
    if not secp.verify(ch.remote.funding_pubkey, commitment.sighash, signature):
        raise PeerFault("invalid signature of our commitment")
    if not htlc_signatures:
        return
    htlc_point = derive_public_key(ch.remote.htlc_basepoint, point)
    for htlc, htlc_signature in zip(commitment.htlcs, htlc_signatures, strict=True):
        if not secp.verify(htlc_point, htlc.sighash, htlc_signature):
            raise PeerFault("invalid htlc signature")


def published(ch: Channel, keys: ChannelKeys) -> bytes:
    """Our own commitment transaction, signed by both."""
    commit = ch.local_commit
    assert commit is not None, "there is something to publish once funding is signed"
    commitment = local_commitment(ch, keys, commit)
    holder_signature = secp.sign(keys.funding_secret, commitment.sighash)
    return signed_commitment(commitment, side(ch, local=True), holder_signature, commit.signature)


def local_commitment(ch: Channel, keys: ChannelKeys, commit: LocalCommit) -> Commitment:
    point = per_commitment_point(keys.commitment_seed, commit.number)
    return build(ch, views.SIGNED, commit.number, point, _balances(commit), local=True)


def remote_next_commitment(ch: Channel, commit: RemoteCommit) -> Commitment:
    """The peer's commitment that we signed and that it has not acknowledged, for signing it once more."""
    return build(ch, views.SIGNED, commit.number, ch.remote_next_point, _balances(commit), local=False)


def _balances(commit: LocalCommit | RemoteCommit) -> Balances:
    return Balances(commit.feerate_per_kw, commit.local_msat, commit.remote_msat)
