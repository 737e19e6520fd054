"""What must hold of a channel that is about to be: BOLT 2, open_channel and accept_channel, as lists of checks."""

from node.bitcoin.fees import opener_cost_sat
from node.bitcoin.scripts import is_standard_shutdown_script
from node.channel.model import SAT, Channel
from node.channel.parameters import Negotiated, OpenRequest, Party, Policy, Terms
from node.crypto.keys import is_valid_point
from node.errors import PeerFault, Refused
from node.wire.bolt2 import AcceptChannel, OpenChannel
from node.wire.features import ChannelType

LARGE_FUNDING_SAT = 1 << 24  # BOLT 2: from here on both sides need option_support_large_channel
MIN_DUST_LIMIT_SAT = 354  # BOLT 3, dust limits: the highest threshold among segwit outputs
MAX_ACCEPTED_HTLCS = 483
MAX_MONEY_SAT = 2_100_000_000_000_000
RESERVE_FLOOR_SAT = 1_000  # so that no peer's dust limit is above the reserve of a small channel


def reserve_sat(terms: Terms, funding_sat: int, *dust_limits_sat: int) -> int:
    """What we make the peer keep: a share of the capacity, never below either side's dust limit."""
    share_sat = funding_sat * terms.params.reserve_ppm // 1_000_000
    return max(share_sat, RESERVE_FLOOR_SAT, terms.params.dust_limit_sat, *dust_limits_sat)


def choose_type(request: OpenRequest, features: Negotiated) -> ChannelType:
    """The type to ask for. Raises Refused for one that the two sides do not share."""
    best = ChannelType(features.anchors, scid_alias=features.scid_alias and not request.announce)
    wanted = request.type or best
    if not features.static_remotekey or not is_supported(wanted, features):
        raise Refused("the peer does not support this type of channel")
    if wanted.scid_alias and request.announce:
        raise Refused("an announced channel cannot be of a type with option_scid_alias")
    return wanted


def is_supported(channel_type: ChannelType, features: Negotiated) -> bool:
    return (features.anchors or not channel_type.anchors) and (
        features.scid_alias or not channel_type.scid_alias
    )


def check_request(request: OpenRequest, terms: Terms, channel_type: ChannelType, policy: Policy) -> None:
    """Refused where our own wish could not become a channel."""
    if terms.features.dual_fund:
        raise Refused("with option_dual_fund negotiated, version 1 opens are not allowed")
    if not policy.min_funding_sat <= request.funding_sat <= policy.max_funding_sat:
        raise Refused("funding is outside of what we allow")
    if request.funding_sat >= LARGE_FUNDING_SAT and not terms.features.large_channel:
        raise Refused("the peer does not support large channels")
    if not policy.min_feerate_per_kw <= request.feerate_per_kw <= policy.max_feerate_per_kw:
        raise Refused("fee rate is outside of what we allow")
    if not 0 <= request.push_msat <= request.funding_sat * SAT:
        raise Refused("cannot push more than the funding")
    reserve = reserve_sat(terms, request.funding_sat)
    if not _is_affordable(
        request.funding_sat, request.push_msat, request.feerate_per_kw, channel_type, (reserve, reserve)
    ):
        raise Refused("the funding would not pay the first commitment's fee above the reserve")


def check_open(message: OpenChannel, terms: Terms, policy: Policy) -> ChannelType:
    """The type of the channel that the peer asks for. Raises PeerFault where BOLT 2 has us fail it."""
    if message.chain_hash != terms.params.chain_hash:
        raise PeerFault("unknown chain")
    if message.temporary_channel_id == bytes(32):
        raise PeerFault("temporary_channel_id is zero")  # it would speak of all channels in an error
    if terms.features.dual_fund:
        raise PeerFault("open_channel where option_dual_fund is negotiated")
    channel_type = _opened_type(message, terms)
    if not policy.min_funding_sat <= message.funding_satoshis <= policy.max_funding_sat:
        raise PeerFault(
            f"funding_satoshis must be within {policy.min_funding_sat} and {policy.max_funding_sat}"
        )
    if message.funding_satoshis >= LARGE_FUNDING_SAT and not terms.features.large_channel:
        raise PeerFault("large channels are not negotiated")
    if message.push_msat > message.funding_satoshis * SAT:
        raise PeerFault("push_msat is above the funding")
    if not policy.min_feerate_per_kw <= message.feerate_per_kw <= policy.max_feerate_per_kw:
        raise PeerFault("feerate_per_kw is unreasonable")
    _check_parameters(message, message.funding_satoshis, policy)
    _check_points(message)
    check_upfront_script(message.upfront_shutdown_script, terms.features)
    return channel_type


def _opened_type(message: OpenChannel, terms: Terms) -> ChannelType:
    if message.channel_type is None:
        raise PeerFault("open_channel without channel_type")
    channel_type = ChannelType.from_bytes(message.channel_type)
    if channel_type is None or not is_supported(channel_type, terms.features):
        raise PeerFault("unsuitable channel_type")
    if channel_type.scid_alias and message.channel_flags & 1:
        raise PeerFault("an announced channel with option_scid_alias in its type")
    return channel_type


def check_reserves(
    message: OpenChannel, terms: Terms, channel_type: ChannelType, our_reserve_sat: int
) -> None:
    """PeerFault unless the opener can pay the first commitment, and one side has something to lose in it."""
    if message.channel_reserve_satoshis < terms.params.dust_limit_sat:
        raise PeerFault("channel_reserve_satoshis is below our dust limit")
    if not _is_affordable(
        message.funding_satoshis,
        message.push_msat,
        message.feerate_per_kw,
        channel_type,
        (our_reserve_sat, message.channel_reserve_satoshis),
    ):
        raise PeerFault(
            "the funder cannot pay for the first commitment, or both sides are below their reserve"
        )


def check_accept(ch: Channel, message: AcceptChannel, policy: Policy) -> None:
    """PeerFault where BOLT 2 has us fail the channel over the peer's accept_channel."""
    if message.temporary_channel_id != ch.channel_id:
        raise PeerFault("accept_channel for another channel")
    if message.channel_type != ch.type.to_bytes():
        raise PeerFault("channel_type is not the one of open_channel")
    if message.minimum_depth > policy.max_minimum_depth:
        raise PeerFault("minimum_depth is unreasonable")
    if message.channel_reserve_satoshis < ch.local.dust_limit_sat:
        raise PeerFault("channel_reserve_satoshis is below our dust limit")
    if ch.local.channel_reserve_sat < message.dust_limit_satoshis:
        raise PeerFault("dust_limit_satoshis is above the reserve")
    _check_parameters(message, ch.funding_sat, policy)
    _check_points(message)
    if message.funding_pubkey == ch.local.funding_pubkey:
        raise PeerFault("funding_pubkey is ours")
    check_upfront_script(message.upfront_shutdown_script, ch.features)
    assert ch.opening is not None, "an opening channel knows what it opens"
    if not _is_affordable(
        ch.funding_sat,
        ch.opening.push_msat,
        ch.opening.feerate_per_kw,
        ch.type,
        (message.channel_reserve_satoshis, ch.local.channel_reserve_sat),
    ):
        raise PeerFault("with this reserve neither side would have anything to spend")


def _check_parameters(message: OpenChannel | AcceptChannel, funding_sat: int, policy: Policy) -> None:
    """What open_channel and accept_channel have in common."""
    if message.dust_limit_satoshis < MIN_DUST_LIMIT_SAT:
        raise PeerFault(f"dust_limit_satoshis is below {MIN_DUST_LIMIT_SAT}")
    if message.dust_limit_satoshis > policy.max_dust_limit_sat:
        raise PeerFault(f"dust_limit_satoshis is above {policy.max_dust_limit_sat}")
    if message.dust_limit_satoshis > message.channel_reserve_satoshis and isinstance(message, OpenChannel):
        raise PeerFault("dust_limit_satoshis is above channel_reserve_satoshis")
    max_reserve_sat = max(funding_sat * policy.max_reserve_ppm // 1_000_000, policy.max_dust_limit_sat)
    if message.channel_reserve_satoshis > max_reserve_sat:
        raise PeerFault("channel_reserve_satoshis is too large")
    if message.to_self_delay > policy.max_to_self_delay:
        raise PeerFault("to_self_delay is unreasonable")
    if not policy.min_accepted_htlcs <= message.max_accepted_htlcs <= MAX_ACCEPTED_HTLCS:
        raise PeerFault("max_accepted_htlcs is unreasonable")
    if message.htlc_minimum_msat > policy.max_htlc_minimum_msat:
        raise PeerFault("htlc_minimum_msat is too large")
    if message.max_htlc_value_in_flight_msat < policy.min_htlc_value_in_flight_msat:
        raise PeerFault("max_htlc_value_in_flight_msat is too small")


def _check_points(message: OpenChannel | AcceptChannel) -> None:
    points = (
        message.funding_pubkey,
        message.revocation_basepoint,
        message.payment_basepoint,
        message.delayed_payment_basepoint,
        message.htlc_basepoint,
        message.first_per_commitment_point,
    )
    if not all(is_valid_point(point) for point in points):
        raise PeerFault("not a point of secp256k1")


def check_upfront_script(script: bytes | None, features: Negotiated) -> None:
    if script and not is_standard_shutdown_script(script, features.shutdown_anysegwit, features.simple_close):
        raise PeerFault("upfront_shutdown_script has no standard form")


def _is_affordable(
    funding_sat: int,
    push_msat: int,
    feerate_per_kw: int,
    channel_type: ChannelType,
    reserves_sat: tuple[int, int],
) -> bool:
    """Whether the opener can pay the first commitment, and one output of it is above its owner's reserve.

    The reserves are the opener's and the accepter's.
    """
    opener_reserve_sat, accepter_reserve_sat = reserves_sat
    opener_sat = (funding_sat * SAT - push_msat) // SAT
    cost_sat = opener_cost_sat(channel_type.anchors, feerate_per_kw, untrimmed_count=0)
    # BOLT 2, open_channel: for the fee itself the whole balance counts, reserve included
    return opener_sat >= cost_sat and (
        opener_sat - cost_sat > opener_reserve_sat or push_msat // SAT > accepter_reserve_sat
    )


def party(message: OpenChannel | AcceptChannel) -> Party:
    """What the peer said of itself."""
    return Party(
        dust_limit_sat=message.dust_limit_satoshis,
        max_htlc_value_in_flight_msat=message.max_htlc_value_in_flight_msat,
        channel_reserve_sat=message.channel_reserve_satoshis,
        htlc_minimum_msat=message.htlc_minimum_msat,
        to_self_delay=message.to_self_delay,
        max_accepted_htlcs=message.max_accepted_htlcs,
        funding_pubkey=message.funding_pubkey,
        revocation_basepoint=message.revocation_basepoint,
        payment_basepoint=message.payment_basepoint,
        delayed_payment_basepoint=message.delayed_payment_basepoint,
        htlc_basepoint=message.htlc_basepoint,
        upfront_shutdown_script=message.upfront_shutdown_script or b"",
    )
