"""What must be kept of each commitment that the peer revoked, to take everything should it publish it."""

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from node.channel import views
from node.channel.model import Channel, RemoteCommit


class RevokedHtlc(Struct, frozen=True, array_like=True):
    offered: bool  # by us
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int


class RevokedCommitment(Struct, frozen=True, array_like=True):
    """The per-commitment secret is not in here: the channel's shachain has all of them."""

    number: int
    txid: bytes
    feerate_per_kw: int
    local_msat: int
    remote_msat: int
    htlcs: tuple[RevokedHtlc, ...]  # those with an output


_ENCODER = Encoder()
_DECODER = Decoder(RevokedCommitment)


def remember(ch: Channel, commit: RemoteCommit) -> RevokedCommitment:
    """The peer's commitment that its next revoke_and_ack revokes."""
    offered, received = views.select(ch, views.UNREVOKED, local=False)
    dust = views.dust(ch, local=False, feerate_per_kw=commit.feerate_per_kw)
    htlcs = [
        RevokedHtlc(True, h.amount_msat, h.payment_hash, h.cltv_expiry)
        for h in offered
        if h.amount_msat >= dust.offered_msat
    ]
    htlcs += [
        RevokedHtlc(False, h.amount_msat, h.payment_hash, h.cltv_expiry)
        for h in received
        if h.amount_msat >= dust.received_msat
    ]
    return RevokedCommitment(
        commit.number, commit.txid, commit.feerate_per_kw, commit.local_msat, commit.remote_msat, tuple(htlcs)
    )


def encode(commitment: RevokedCommitment) -> bytes:
    return _ENCODER.encode(commitment)


def decode(data: bytes) -> RevokedCommitment:
    return _DECODER.decode(data)
