"""BOLT 2, commitment_signed and revoke_and_ack: making updates irrevocable, one commitment at a time each way."""

from msgspec.structs import replace

from node.channel import commitments, revoked, views
from node.channel.effects import Effects, Send, Store, StoreRevoked
from node.channel.model import Channel, LocalCommit, RemoteCommit
from node.channel.normal import require_updating
from node.channel.updates import Turn, advance
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys, per_commitment_point, per_commitment_secret
from node.crypto.shachain import FIRST_INDEX
from node.errors import PeerFault
from node.wire import bolt2


def sign(ch: Channel, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """Commit to everything pending, if there is anything and the peer owes us no revocation."""
    if not ch.wants_to_sign:
        return ch, ()
    assert ch.remote_commit is not None, "only a funded channel has updates"
    number, point = ch.remote_commit.number + 1, ch.remote_next_point
    balances = commitments.next_balances(ch, local=False)
    commitment = commitments.build(ch, views.NEXT, number, point, balances, local=False)
    signature, htlc_signatures = commitments.sign(ch, keys, commitment, point)
    after, effects = advance(ch, Turn.WE_SIGN)
    after = replace(
        after,
        remote_next=RemoteCommit(
            number, commitment.txid, balances.feerate_per_kw, balances.local_msat, balances.remote_msat
        ),
        revoked_last=False,
    )
    message = bolt2.CommitmentSigned(ch.channel_id, signature, htlc_signatures)
    return after, (Store(), Send(message), *effects)


def receive_commitment_signed(
    ch: Channel, message: bolt2.CommitmentSigned, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    """Take over our next commitment, and give up the one before in the same step."""
    require_updating(ch)
    assert ch.local_commit is not None, "only a funded channel has updates"
    number = ch.local_commit.number + 1
    point = per_commitment_point(keys.commitment_seed, number)
    balances = commitments.next_balances(ch, local=True)
    commitment = commitments.build(ch, views.NEXT, number, point, balances, local=True)
    commitments.check_signatures(ch, commitment, point, message.signature, message.htlc_signatures)
    after, effects = advance(ch, Turn.THEY_SIGN)
    after = replace(
        after,
        local_commit=LocalCommit(
            number,
            commitment.txid,
            balances.feerate_per_kw,
            balances.local_msat,
            balances.remote_msat,
            message.signature,
            b"".join(message.htlc_signatures),
        ),
        revoked_last=True,
    )
    return after, (Store(), Send(revocation(after, keys)), *effects)


def revocation(ch: Channel, keys: ChannelKeys) -> bolt2.RevokeAndAck:
    """The revoke_and_ack of the commitment before our present one."""
    assert ch.local_commit is not None, "only what was signed is revoked"
    number = ch.local_commit.number
    return bolt2.RevokeAndAck(
        ch.channel_id,
        per_commitment_secret(keys.commitment_seed, number - 1),
        per_commitment_point(keys.commitment_seed, number + 1),
    )


def receive_revoke_and_ack(ch: Channel, message: bolt2.RevokeAndAck) -> tuple[Channel, Effects]:
    """The peer gave up its commitment: keep what punishes its publication, and move updates on."""
    require_updating(ch)
    old = ch.remote_commit
    if ch.remote_next is None or old is None:
        raise PeerFault("revoke_and_ack where none is owed")
    secret = message.per_commitment_secret
    if not secp.is_valid_secret(secret) or secp.public_key(secret) != ch.remote_point:
        raise PeerFault("per_commitment_secret does not belong to the revoked commitment")
    if not secp.is_valid_point(message.next_per_commitment_point):
        raise PeerFault("next_per_commitment_point is no point")
    after, effects = advance(ch, Turn.THEY_REVOKE)
    after = replace(
        after,
        remote_commit=ch.remote_next,
        remote_next=None,
        remote_point=ch.remote_next_point,
        remote_next_point=message.next_per_commitment_point,
        shachain=ch.shachain.insert(FIRST_INDEX - old.number, secret),
    )
    return after, (Store(), StoreRevoked(old.number, revoked.encode(revoked.remember(ch, old))), *effects)
