"""What becomes of a gossip message: a frontend checks form and signatures, the backend chain and policy.

Every answer is a Verdict and nobody raises. A refusal is never remembered: an invalid or early message must not
keep a later valid one out.
"""

from enum import IntEnum

from msgspec import Struct

from node.bitcoin.scripts import funding_script, p2wsh
from node.crypto.hashes import hash256
from node.crypto.keys import is_valid_point, verify, verify_once
from node.errors import MalformedMessage
from node.gossip import raw as gossip
from node.gossip.graph import STALE_AFTER_S, UNKNOWN_CAPACITY_SAT, Graph

MAX_FUTURE_S = 24 * 3600  # clocks differ; an update from the far future could not be replaced for as long
MIN_CONFIRMATIONS = 6  # BOLT 7, channel_announcement
MAX_ASSUMED_CHANNELS = 200_000  # four times the public network: invented ones cost memory for ever
MAX_HEIGHT = (1 << 23) - 1  # of a block: as far as the arrays of node.gossip.topology reach

# address descriptor type -> its length without the type byte
_ADDRESS_SIZES = {1: 6, 2: 18, 3: 12, 4: 37}
_DNS_HOSTNAME = 5


class Verdict(IntEnum):
    """What was decided about a gossip message. The numbers travel on the link: never reuse one."""

    ACCEPTED = 0  # by a frontend: worth the backend's attention; by the backend: part of the graph now
    DUPLICATE = 1  # we have exactly this already
    STALE = 2  # we have something newer, or it is older than two weeks
    MALFORMED = 3
    INVALID_SIGNATURE = 4
    WRONG_CHAIN = 5
    UNKNOWN_CHANNEL = 6  # no channel that it could belong to
    TOO_FAR_IN_FUTURE = 7
    PRIVATE = 8  # a channel_update not to be forwarded: for the owner of the channel alone
    UNSUITABLE = 9  # well-formed and signed, but we neither keep nor relay it
    NOT_ON_CHAIN = 10  # no such output, or it is spent
    WRONG_FUNDING = 11  # the output is not the one that the announced keys would make
    UNCONFIRMED = 12  # too few confirmations yet
    SPENT = 13  # about a channel that is being closed
    BUSY = 14  # not looked at

    @property
    def is_fault(self) -> bool:
        """Whether the peer broke a rule (BOLT 7: send a warning), rather than being late or unlucky."""
        return self in (Verdict.MALFORMED, Verdict.INVALID_SIGNATURE)


class FundingOutput(Struct, frozen=True):
    """The unspent transaction output that a short_channel_id points to."""

    script: bytes
    amount_sat: int
    confirmations: int


def check(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    """A frontend's verdict on a message of a peer: form, novelty, and last, since it costs most, signatures."""
    try:
        kind = gossip.check_size(raw)
    except MalformedMessage:
        return Verdict.MALFORMED
    if kind == gossip.CHANNEL_ANNOUNCEMENT:
        return _check_channel(graph, raw)
    if kind == gossip.CHANNEL_UPDATE:
        return _check_update(graph, raw, now_s)
    return _check_node(graph, raw, now_s)


def admit(graph: Graph, raw: bytes, now_s: int, funding: FundingOutput | None = None) -> Verdict:
    """The backend's verdict on a message that a frontend accepted; `funding` belongs to a channel_announcement."""
    kind = gossip.check_size(raw)
    if kind == gossip.CHANNEL_ANNOUNCEMENT:
        return _admit_channel(graph, raw, funding)
    if kind == gossip.CHANNEL_UPDATE:
        return _admit_update(graph, raw, now_s)
    return _node_novelty(graph, raw, now_s)


def assumed_funding(fields: gossip.ChannelFields, known_channels: int) -> FundingOutput | None:
    """What a channel_announcement claims, believed without a look at the chain; none where that goes too far."""
    if known_channels >= MAX_ASSUMED_CHANNELS or gossip.block_height(fields.short_channel_id) > MAX_HEIGHT:
        return None
    if not (is_valid_point(fields.node_id_1) and is_valid_point(fields.node_id_2)):
        return None  # no route may lead through what is no key
    script = p2wsh(funding_script(fields.bitcoin_key_1, fields.bitcoin_key_2))
    return FundingOutput(script, UNKNOWN_CAPACITY_SAT, MIN_CONFIRMATIONS)


def is_signed_by(raw: bytes, node_id: bytes) -> bool:
    """Whether a channel_update or node_announcement bears the signature of this node."""
    return verify(node_id, hash256(raw[gossip.SIGNATURE_END :]), raw[2 : gossip.SIGNATURE_END])


def _check_channel(graph: Graph, raw: bytes) -> Verdict:
    fields = gossip.channel_fields(raw)
    if fields.chain_hash != graph.chain_hash:
        return Verdict.WRONG_CHAIN
    if fields.short_channel_id in graph.channels:
        # whatever differs in a second announcement of an output, the first was checked against the chain
        return Verdict.DUPLICATE
    if fields.node_id_1 >= fields.node_id_2 or gossip.block_height(fields.short_channel_id) == 0:
        return Verdict.MALFORMED
    if len(raw) > gossip.MAX_CHANNEL_ANNOUNCEMENT_SIZE:
        return Verdict.UNSUITABLE
    digest = hash256(raw[gossip.SIGNATURES_END :])
    signed = (
        verify(fields.node_id_1, digest, raw[2:66])
        and verify(fields.node_id_2, digest, raw[66:130])
        and verify_once(fields.bitcoin_key_1, digest, raw[130:194])
        and verify_once(fields.bitcoin_key_2, digest, raw[194:258])
    )
    return Verdict.ACCEPTED if signed else Verdict.INVALID_SIGNATURE


def _check_update(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    verdict = _update_novelty(graph, raw, now_s)
    if verdict is not Verdict.ACCEPTED:
        return verdict
    channel = graph.channels[int.from_bytes(gossip.update_channel(raw), "big")]
    if not is_signed_by(raw, channel.node_id(gossip.update_direction(raw))):
        return Verdict.INVALID_SIGNATURE
    return Verdict.ACCEPTED


def _check_node(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    verdict = _node_novelty(graph, raw, now_s)
    if verdict is not Verdict.ACCEPTED:
        return verdict
    verdict = _addresses_verdict(gossip.node_addresses(raw))
    if verdict is not Verdict.ACCEPTED:
        return verdict
    return Verdict.ACCEPTED if is_signed_by(raw, gossip.node_id(raw)) else Verdict.INVALID_SIGNATURE


def _update_novelty(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    """Everything about a channel_update that costs no signature check."""
    if raw[66:98] != graph.chain_hash:
        return Verdict.WRONG_CHAIN
    timestamp = gossip.update_timestamp(raw)
    if timestamp == 0:
        return Verdict.MALFORMED  # BOLT 7, channel_update: timestamp is above zero
    if raw[110] & gossip.DONT_FORWARD:
        return Verdict.PRIVATE
    channel = graph.channels.get(int.from_bytes(raw[98:106], "big"))
    if channel is None:
        return Verdict.UNKNOWN_CHANNEL
    known = channel.update(raw[111] & 1)
    if known is not None and raw[106:110] <= known[106:110]:
        # BOLT 7, channel_update: the same again, perhaps signed anew, is ignored; so is what is older or contradicts
        return Verdict.DUPLICATE if gossip.same_update(raw, known) else Verdict.STALE
    if len(raw) > gossip.MAX_CHANNEL_UPDATE_SIZE:
        return Verdict.UNSUITABLE
    if channel.short_channel_id in graph.spent and not raw[111] & gossip.DISABLE:
        return Verdict.SPENT
    return _time_verdict(timestamp, now_s)


def _node_novelty(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    timestamp = gossip.node_timestamp(raw)
    if timestamp == 0:
        return Verdict.MALFORMED
    node = graph.nodes.get(gossip.node_id(raw))
    if node is None:
        return Verdict.UNKNOWN_CHANNEL
    if node.announcement is not None and timestamp <= gossip.node_timestamp(node.announcement):
        same = raw[gossip.SIGNATURE_END :] == node.announcement[gossip.SIGNATURE_END :]
        return Verdict.DUPLICATE if same else Verdict.STALE
    if len(raw) > gossip.MAX_NODE_ANNOUNCEMENT_SIZE:
        return Verdict.UNSUITABLE
    # an old node_announcement is still the last word of its node, so age alone does not matter
    return Verdict.TOO_FAR_IN_FUTURE if timestamp > now_s + MAX_FUTURE_S else Verdict.ACCEPTED


def _time_verdict(timestamp: int, now_s: int) -> Verdict:
    if timestamp > now_s + MAX_FUTURE_S:
        return Verdict.TOO_FAR_IN_FUTURE
    return Verdict.STALE if timestamp < now_s - STALE_AFTER_S else Verdict.ACCEPTED


def _addresses_verdict(addresses: bytes) -> Verdict:
    """BOLT 7, node_announcement: descriptors fit, unknown ones end the list, at most one hostname."""
    offset = hostnames = 0
    while offset < len(addresses):
        kind = addresses[offset]
        if kind == _DNS_HOSTNAME:
            hostnames += 1
            size = 3 + int.from_bytes(addresses[offset + 1 : offset + 2], "big")
        elif kind in _ADDRESS_SIZES:
            size = _ADDRESS_SIZES[kind]
        else:
            break
        offset += 1 + size
        if offset > len(addresses):
            return Verdict.MALFORMED
    return Verdict.UNSUITABLE if hostnames > 1 else Verdict.ACCEPTED


def _admit_channel(graph: Graph, raw: bytes, funding: FundingOutput | None) -> Verdict:
    fields = gossip.channel_fields(raw)
    if fields.chain_hash != graph.chain_hash:
        return Verdict.WRONG_CHAIN
    if fields.short_channel_id in graph.channels:
        return Verdict.DUPLICATE
    if funding is None:
        return Verdict.NOT_ON_CHAIN
    # BOLT 7, channel_announcement: the output pays to the two bitcoin keys
    if funding.script != p2wsh(funding_script(fields.bitcoin_key_1, fields.bitcoin_key_2)):
        return Verdict.WRONG_FUNDING
    return Verdict.ACCEPTED if funding.confirmations >= MIN_CONFIRMATIONS else Verdict.UNCONFIRMED


def _admit_update(graph: Graph, raw: bytes, now_s: int) -> Verdict:
    verdict = _update_novelty(graph, raw, now_s)
    if verdict is not Verdict.ACCEPTED:
        return verdict
    fields = gossip.update_fields(raw)
    channel = graph.channels[fields.short_channel_id]
    most_msat = channel.capacity_sat * 1000
    # BOLT 7, channel_update: both would have to be ignored when routing, so they are not worth relaying either.
    # How often a channel changes is not judged: the newest always counts, and one flush sends only the last.
    suitable = fields.htlc_minimum_msat <= fields.htlc_maximum_msat <= most_msat
    return Verdict.ACCEPTED if suitable else Verdict.UNSUITABLE
