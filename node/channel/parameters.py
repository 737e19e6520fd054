"""What is agreed when a channel opens, and the limits that we hold a peer to."""

from msgspec import Struct

from node.wire.features import ChannelType, Feature, Features


class Negotiated(Struct, frozen=True):
    """What both ends of the present connection support, as far as channels care."""

    static_remotekey: bool = True
    anchors: bool = True
    scid_alias: bool = False
    large_channel: bool = False
    upfront_shutdown_script: bool = False
    shutdown_anysegwit: bool = False
    simple_close: bool = False
    dual_fund: bool = False


def negotiated(ours: Features, theirs: Features) -> Negotiated:
    """The features of two init messages that both sides set, with either bit."""

    def both(feature: Feature) -> bool:
        return ours.supports(feature) and theirs.supports(feature)

    return Negotiated(
        static_remotekey=both(Feature.OPTION_STATIC_REMOTEKEY),
        anchors=both(Feature.OPTION_ANCHORS),
        scid_alias=both(Feature.OPTION_SCID_ALIAS),
        large_channel=both(Feature.OPTION_SUPPORT_LARGE_CHANNEL),
        upfront_shutdown_script=both(Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT),
        shutdown_anysegwit=both(Feature.OPTION_SHUTDOWN_ANYSEGWIT),
        simple_close=both(Feature.OPTION_SIMPLE_CLOSE),
        dual_fund=both(Feature.OPTION_DUAL_FUND),
    )


class Party(Struct, frozen=True):
    """What one side said of itself in open_channel or accept_channel; limits bind the other side."""

    dust_limit_sat: int = 0
    max_htlc_value_in_flight_msat: int = 0
    channel_reserve_sat: int = 0  # what the other side must keep
    htlc_minimum_msat: int = 0
    to_self_delay: int = 0  # what the other side must wait
    max_accepted_htlcs: int = 0
    funding_pubkey: bytes = b""
    revocation_basepoint: bytes = b""
    payment_basepoint: bytes = b""
    delayed_payment_basepoint: bytes = b""
    htlc_basepoint: bytes = b""
    upfront_shutdown_script: bytes = b""


class LocalParams(Struct, frozen=True, kw_only=True):
    """What we shall say of ourselves in open_channel or accept_channel."""

    chain_hash: bytes
    dust_limit_sat: int = 354  # the least that every standard output script allows
    max_htlc_value_in_flight_msat: int = 20_000_000_000
    reserve_ppm: int = 10_000  # of the capacity, never below either dust limit
    htlc_minimum_msat: int = 1
    to_self_delay: int = 144
    max_accepted_htlcs: int = 483
    minimum_depth: int = 3  # what we, as accepter, ask for
    shutdown_script: bytes  # where a mutual close pays us, unless Shutdown names another
    commit_to_shutdown_script: bool = False  # as upfront_shutdown_script


class Terms(Struct, frozen=True, kw_only=True):
    """What a new channel is made from on our side, whoever opens it."""

    remote_node_id: bytes
    params: LocalParams
    features: Negotiated
    alias: int  # random, of no other channel (BOLT 2, channel_ready)
    height: int  # of the chain, now


class OpenRequest(Struct, frozen=True, kw_only=True):
    """Our own wish for a channel."""

    command_id: int
    temporary_channel_id: bytes  # 32 random bytes, of no other channel with this peer
    funding_sat: int
    push_msat: int = 0
    feerate_per_kw: int
    announce: bool
    type: ChannelType | None = None  # None: the best that both sides know


class Policy(Struct, frozen=True, kw_only=True):
    """What we accept of a peer. The backend sets the fee rates to what the chain makes sensible."""

    min_funding_sat: int = 10_000
    max_funding_sat: int = 1_000_000_000
    max_dust_limit_sat: int = 1_000  # much above the standard limits HTLCs turn into fees (BOLT 2)
    max_reserve_ppm: int = 100_000  # of the capacity; the floor of a small channel is its dust limit
    max_to_self_delay: int = 2_016
    max_minimum_depth: int = 144
    max_htlc_minimum_msat: int = 100_000_000
    min_htlc_value_in_flight_msat: int = 1_000_000
    min_accepted_htlcs: int = 1
    min_feerate_per_kw: int = 253  # Bitcoin Core's relay minimum
    max_feerate_per_kw: int = 100_000
    max_dust_exposure_msat: int = 50_000_000
    fee_spike_factor: int = 2  # BOLT 2, update_add_htlc: the opener's buffer
    max_expiry_blocks: int = 2_016  # how far ahead we offer; funds stuck for longer help nobody
    offered_grace_blocks: int = 2  # G of BOLT 2's cltv_expiry_delta selection
    fulfill_deadline_blocks: int = 18  # 2R+G+S of the same
    forget_after_blocks: int = 2_016  # BOLT 2, channel_ready: the accepter need not wait for ever
    announce_depth: int = 6
    close_feerate_per_kw: int = 1_000  # where the peer asks for a mutual close
    close_depth: int = 6  # a close with fewer blocks above it can still be undone
