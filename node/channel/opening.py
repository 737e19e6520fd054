"""BOLT 2, channel establishment version 1, from the first message to the two first commitments.

    opener                                   accepter
      | -- open_channel ----------------------> |
      | <------------------ accept_channel ---- |
      |    Fund -> the wallet -> Funded         |
      | -- funding_created -------------------> |
      | <------------------ funding_signed ---- |   Store, WatchFunding
      |    Store, WatchFunding, Publish         |

Until the last line nothing of it is worth remembering: a lost connection forgets it all.
"""

from msgspec.structs import replace

from node.bitcoin import transaction
from node.bitcoin.scripts import funding_script, p2wsh
from node.channel import commitments, open_checks, views
from node.channel.effects import Effects, Fund, Identify, Publish, Reply, Send, Store, WatchFunding
from node.channel.events import Funded
from node.channel.model import (
    SAT,
    Channel,
    Funding,
    Link,
    LocalCommit,
    Opening,
    Phase,
    RemoteCommit,
    State,
    View,
)
from node.channel.parameters import OpenRequest, Party, Policy, Terms
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys, per_commitment_point
from node.errors import MalformedMessage, PeerFault, Refused
from node.wire import bolt2
from node.wire.bolt1 import Error
from node.wire.features import ChannelType

MIN_DEPTH = 1  # zero confirmations are for option_zeroconf alone


def open_outgoing(
    request: OpenRequest, terms: Terms, keys: ChannelKeys, policy: Policy
) -> tuple[Channel | None, Effects]:
    """Begin a channel of our own; without a channel, the Reply says why."""
    try:
        channel_type = open_checks.choose_type(request, terms.features)
        open_checks.check_request(request, terms, channel_type, policy)
    except Refused as why:
        return None, (Reply(request.command_id, str(why)),)
    local = _our_party(terms, keys, open_checks.reserve_sat(terms, request.funding_sat), request.funding_sat)
    ch = Channel(
        channel_id=request.temporary_channel_id,
        local_node_id=secp.public_key(keys.node_secret),
        remote_node_id=terms.remote_node_id,
        chain_hash=terms.params.chain_hash,
        is_opener=True,
        announce=request.announce,
        type=channel_type,
        phase=Phase.ACCEPT_CHANNEL,
        link=Link.ONLINE,
        features=terms.features,
        local=local,
        remote=Party(),
        funding_sat=request.funding_sat,
        minimum_depth=0,
        alias=terms.alias,
        shutdown_script=terms.params.shutdown_script,
        opening=Opening(request.push_msat, request.feerate_per_kw, request.command_id),
        height=terms.height,
    )
    return ch, (Send(_open_message(ch, request, keys)),)


def _open_message(ch: Channel, request: OpenRequest, keys: ChannelKeys) -> bolt2.OpenChannel:
    return bolt2.OpenChannel(
        chain_hash=ch.chain_hash,
        temporary_channel_id=ch.channel_id,
        funding_satoshis=ch.funding_sat,
        push_msat=request.push_msat,
        dust_limit_satoshis=ch.local.dust_limit_sat,
        max_htlc_value_in_flight_msat=ch.local.max_htlc_value_in_flight_msat,
        channel_reserve_satoshis=ch.local.channel_reserve_sat,
        htlc_minimum_msat=ch.local.htlc_minimum_msat,
        feerate_per_kw=request.feerate_per_kw,
        to_self_delay=ch.local.to_self_delay,
        max_accepted_htlcs=ch.local.max_accepted_htlcs,
        funding_pubkey=ch.local.funding_pubkey,
        revocation_basepoint=ch.local.revocation_basepoint,
        payment_basepoint=ch.local.payment_basepoint,
        delayed_payment_basepoint=ch.local.delayed_payment_basepoint,
        htlc_basepoint=ch.local.htlc_basepoint,
        first_per_commitment_point=per_commitment_point(keys.commitment_seed, 0),
        channel_flags=int(ch.announce),
        # BOLT 2: present, if only empty, wherever channel_type is
        upfront_shutdown_script=ch.local.upfront_shutdown_script,
        channel_type=ch.type.to_bytes(),
    )


def open_incoming(
    message: bolt2.OpenChannel, terms: Terms, keys: ChannelKeys, policy: Policy
) -> tuple[Channel | None, Effects]:
    """Take part in a channel that the peer opens; without a channel, the error for it is among the effects.

    Whether one more unfunded channel is welcome has been decided before.
    """
    try:
        channel_type = open_checks.check_open(message, terms, policy)
        reserve_sat = open_checks.reserve_sat(terms, message.funding_satoshis, message.dust_limit_satoshis)
        open_checks.check_reserves(message, terms, channel_type, reserve_sat)
    except PeerFault as fault:
        return None, (Send(Error(message.temporary_channel_id, str(fault).encode())),)
    ch = _incoming_channel(message, terms, keys, channel_type, reserve_sat)
    if ch.local.funding_pubkey == message.funding_pubkey:
        return None, (Send(Error(message.temporary_channel_id, b"funding_pubkey is ours")),)
    return ch, (Send(_accept_message(ch, keys)),)


def _incoming_channel(
    message: bolt2.OpenChannel, terms: Terms, keys: ChannelKeys, channel_type: ChannelType, reserve_sat: int
) -> Channel:
    return Channel(
        channel_id=message.temporary_channel_id,
        local_node_id=secp.public_key(keys.node_secret),
        remote_node_id=terms.remote_node_id,
        chain_hash=message.chain_hash,
        is_opener=False,
        announce=bool(message.channel_flags & 1),
        type=channel_type,
        phase=Phase.FUNDING_CREATED,
        link=Link.ONLINE,
        features=terms.features,
        local=_our_party(terms, keys, reserve_sat, message.funding_satoshis),
        remote=open_checks.party(message),
        funding_sat=message.funding_satoshis,
        minimum_depth=max(MIN_DEPTH, terms.params.minimum_depth),
        alias=terms.alias,
        shutdown_script=terms.params.shutdown_script,
        opening=Opening(message.push_msat, message.feerate_per_kw),
        remote_point=message.first_per_commitment_point,
        height=terms.height,
    )


def _accept_message(ch: Channel, keys: ChannelKeys) -> bolt2.AcceptChannel:
    return bolt2.AcceptChannel(
        temporary_channel_id=ch.channel_id,
        dust_limit_satoshis=ch.local.dust_limit_sat,
        max_htlc_value_in_flight_msat=ch.local.max_htlc_value_in_flight_msat,
        channel_reserve_satoshis=ch.local.channel_reserve_sat,
        htlc_minimum_msat=ch.local.htlc_minimum_msat,
        minimum_depth=ch.minimum_depth,
        to_self_delay=ch.local.to_self_delay,
        max_accepted_htlcs=ch.local.max_accepted_htlcs,
        funding_pubkey=ch.local.funding_pubkey,
        revocation_basepoint=ch.local.revocation_basepoint,
        payment_basepoint=ch.local.payment_basepoint,
        delayed_payment_basepoint=ch.local.delayed_payment_basepoint,
        htlc_basepoint=ch.local.htlc_basepoint,
        first_per_commitment_point=per_commitment_point(keys.commitment_seed, 0),
        upfront_shutdown_script=ch.local.upfront_shutdown_script,
        channel_type=ch.type.to_bytes(),
    )


def _our_party(terms: Terms, keys: ChannelKeys, reserve_sat: int, funding_sat: int) -> Party:
    params = terms.params
    commits = params.commit_to_shutdown_script and terms.features.upfront_shutdown_script
    return Party(
        dust_limit_sat=params.dust_limit_sat,
        max_htlc_value_in_flight_msat=min(params.max_htlc_value_in_flight_msat, funding_sat * SAT),
        channel_reserve_sat=reserve_sat,
        htlc_minimum_msat=params.htlc_minimum_msat,
        to_self_delay=params.to_self_delay,
        max_accepted_htlcs=min(params.max_accepted_htlcs, open_checks.MAX_ACCEPTED_HTLCS),
        funding_pubkey=secp.public_key(keys.funding_secret),
        revocation_basepoint=secp.public_key(keys.revocation_base_secret),
        payment_basepoint=secp.public_key(keys.payment_base_secret),
        delayed_payment_basepoint=secp.public_key(keys.delayed_payment_base_secret),
        htlc_basepoint=secp.public_key(keys.htlc_base_secret),
        upfront_shutdown_script=params.shutdown_script if commits else b"",
    )


def receive_accept(ch: Channel, message: bolt2.AcceptChannel, policy: Policy) -> tuple[Channel, Effects]:
    """The peer wants the channel: have it funded."""
    if ch.phase is not Phase.ACCEPT_CHANNEL:
        raise PeerFault("accept_channel is not awaited")
    open_checks.check_accept(ch, message, policy)
    after = replace(
        ch,
        phase=Phase.FUNDING_TX,
        remote=open_checks.party(message),
        minimum_depth=max(MIN_DEPTH, message.minimum_depth),
        remote_point=message.first_per_commitment_point,
    )
    return after, (Fund(output_script(after), ch.funding_sat),)


def output_script(ch: Channel) -> bytes:
    """The script of the funding output."""
    return p2wsh(funding_script(ch.local.funding_pubkey, ch.remote.funding_pubkey))


def funded(ch: Channel, event: Funded, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """The wallet made the funding transaction: sign the peer's first commitment."""
    if ch.phase is not Phase.FUNDING_TX:
        raise Refused("no funding is awaited")
    txid = _checked_funding(ch, event)
    ch = _with_first_balances(
        replace(ch, funding=Funding(txid, event.output_index, event.tx, first_height=ch.height))
    )
    after, signature = _sign_first(ch, keys)
    channel_id = channel_id_of(txid, event.output_index)
    after = replace(after, channel_id=channel_id, phase=Phase.FUNDING_SIGNED)
    return after, (
        Identify(ch.channel_id, channel_id),
        Send(bolt2.FundingCreated(ch.channel_id, txid, event.output_index, signature)),
    )


def _checked_funding(ch: Channel, event: Funded) -> bytes:
    try:
        outputs = transaction.parse(event.tx).outputs
    except MalformedMessage as error:
        raise Refused("the funding transaction cannot be read") from error
    expected = transaction.Output(ch.funding_sat, output_script(ch))
    if not 0 <= event.output_index < len(outputs) or outputs[event.output_index] != expected:
        raise Refused("the funding transaction lacks the funding output")
    return transaction.txid(event.tx)


def channel_id_of(funding_txid: bytes, output_index: int) -> bytes:
    """BOLT 2, definition of channel_id: the output index changes the last two bytes."""
    tail = int.from_bytes(funding_txid[-2:], "big") ^ output_index
    return funding_txid[:-2] + tail.to_bytes(2, "big")


def _with_first_balances(ch: Channel) -> Channel:
    assert ch.opening is not None, "an opening channel knows what it opens"
    opener_msat, accepter_msat = ch.funding_sat * SAT - ch.opening.push_msat, ch.opening.push_msat
    view = View(opener_msat, accepter_msat) if ch.is_opener else View(accepter_msat, opener_msat)
    return replace(
        ch, local_view=view, remote_view=view, feerates={State.COMMITTED: ch.opening.feerate_per_kw}
    )


def _sign_first(ch: Channel, keys: ChannelKeys) -> tuple[Channel, bytes]:
    balances = commitments.next_balances(ch, local=False)
    commitment = commitments.build(ch, views.NEXT, 0, ch.remote_point, balances, local=False)
    signature, _ = commitments.sign(ch, keys, commitment, ch.remote_point)
    commit = RemoteCommit(
        0, commitment.txid, balances.feerate_per_kw, balances.local_msat, balances.remote_msat
    )
    return replace(ch, remote_commit=commit), signature


def _take_first(ch: Channel, keys: ChannelKeys, signature: bytes) -> Channel:
    point = per_commitment_point(keys.commitment_seed, 0)
    balances = commitments.next_balances(ch, local=True)
    commitment = commitments.build(ch, views.NEXT, 0, point, balances, local=True)
    commitments.check_signatures(ch, commitment, point, signature, ())
    commit = LocalCommit(
        number=0,
        txid=commitment.txid,
        feerate_per_kw=balances.feerate_per_kw,
        local_msat=balances.local_msat,
        remote_msat=balances.remote_msat,
        signature=signature,
        htlc_signatures=b"",
    )
    return replace(ch, local_commit=commit, phase=Phase.FUNDING_CONFIRMED, opening=None)


def receive_funding_created(
    ch: Channel, message: bolt2.FundingCreated, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    """The accepter learns the outpoint, and from here on remembers the channel."""
    if ch.phase is not Phase.FUNDING_CREATED or message.temporary_channel_id != ch.channel_id:
        raise PeerFault("funding_created is not awaited")
    if message.funding_txid == bytes(32):
        raise PeerFault("funding_txid is zero")
    funding = Funding(message.funding_txid, message.funding_output_index, first_height=ch.height)
    after, signature = _sign_first(_with_first_balances(replace(ch, funding=funding)), keys)
    after = _take_first(after, keys, message.signature)
    channel_id = channel_id_of(funding.txid, funding.output_index)
    return replace(after, channel_id=channel_id), (
        Identify(ch.channel_id, channel_id),
        Store(),
        Send(bolt2.FundingSigned(channel_id, signature)),
        WatchFunding(funding.txid, funding.output_index),
    )


def receive_funding_signed(
    ch: Channel, message: bolt2.FundingSigned, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    """The opener can get its money back: only now does it spend it."""
    if ch.phase is not Phase.FUNDING_SIGNED:
        raise PeerFault("funding_signed is not awaited")
    assert ch.funding is not None, "funding_created named it"
    assert ch.opening is not None, "an opening channel knows what it opens"
    after = _take_first(ch, keys, message.signature)
    replies = () if ch.opening.command_id is None else (Reply(ch.opening.command_id, value=ch.channel_id),)
    return after, (
        Store(),
        WatchFunding(ch.funding.txid, ch.funding.output_index),
        Publish(ch.funding.tx, "funding"),
        *replies,
    )
