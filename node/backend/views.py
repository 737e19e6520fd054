"""What the API shows of things: plain dictionaries, ids in hex, amounts in msat and sat."""

from typing import Any

from node.backend.channels import Channels, Record
from node.backend.links import FrontendLink
from node.backend.receiving import Received
from node.backend.switchboard import Peer
from node.bitcoin.transaction import txid
from node.channel.limits import receivable_msat, spendable_msat
from node.gossip.graph import KnownNode
from node.gossip.raw import node_addresses
from node.payment import send
from node.payment.receive import Phase
from node.runtime.addresses import join_address
from node.wire.addresses import decode_addresses

View = dict[str, Any]


def short_channel_id(value: int | None) -> str | None:
    """BxTxO, as people write it."""
    return None if value is None else f"{value >> 40}x{value >> 16 & 0xFFFFFF}x{value & 0xFFFF}"


def channel(record: Record, channels: Channels) -> View:
    ch = record.channel
    usable = ch.is_usable
    return {
        "channel_id": ch.channel_id.hex(),
        "short_channel_id": short_channel_id(ch.short_channel_id),
        "alias": short_channel_id(ch.alias),
        "remote_alias": short_channel_id(ch.remote_alias),
        "node_id": record.node_id.hex(),
        "phase": ch.phase.value,
        "link": ch.link.value,
        "is_opener": ch.is_opener,
        "announce": ch.announce,
        "type": "anchors" if ch.type.anchors else "static_remotekey",
        "scid_alias": ch.type.scid_alias,
        "capacity_sat": ch.funding_sat,
        "local_msat": ch.local_msat,
        "remote_msat": ch.remote_msat,
        "spendable_msat": spendable_msat(ch, channels.policy) if usable else 0,
        "receivable_msat": receivable_msat(ch) if usable else 0,
        "offered": len(ch.offered),
        "received": len(ch.received),
        "offered_msat": ch.local_view.offered_msat,
        "received_msat": ch.local_view.received_msat,
        "usable": usable,
        "depth": ch.depth,
        "funding_txid": ch.funding.txid[::-1].hex() if ch.funding else None,
        "closing_txid": txid(ch.closing.txs[-1])[::-1].hex() if ch.closing and ch.closing.txs else None,
        "failure": ch.failure,
    }


def peer(value: Peer, channels: int) -> View:
    session = value.session
    return {
        "node_id": value.node_id.hex(),
        "connected": session is not None,
        "frontend": session.link.frontend_id if session else None,
        "session": session.name if session else None,
        "address": value.address,
        "channels": channels,
    }


def frontend(link: FrontendLink) -> View:
    status = link.status
    return {
        "id": link.frontend_id,
        "version": link.version,
        "sessions": sum(1 for session in link.sessions.values() if session.node_id),
        "messages_in": status.messages_in if status else 0,
        "messages_out": status.messages_out if status else 0,
        "bytes_in": status.bytes_in if status else 0,
        "bytes_out": status.bytes_out if status else 0,
        "delay_ms": round(1_000 * link.delay_s, 3),
        "graph_sequence": status.graph_sequence if status else 0,
    }


def received(row: Received) -> View:
    state, promise = row.state, row.state.promise
    return {
        "payment_hash": row.payment_hash.hex(),
        "bolt11": row.bolt11,
        "description": row.description,
        "amount_msat": promise.amount_msat if promise else None,
        "received_msat": row.received_msat,
        "state": state.status,
        "paid": row.is_paid,
        "hold": promise is not None and promise.hold,
        "held_msat": state.amount_msat if state.status == Phase.HELD.value else 0,
        "parts": len(state.parts),
        "release_height": state.release_height,
        "keysend": row.keysend,
        "created_s": row.created_s,
        "received_s": row.received_s,
    }


def known_node(node: KnownNode) -> View:
    return {
        "node_id": node.node_id.hex(),
        "announced": node.announcement is not None,
        "addresses": announced_addresses(node),
    }


def announced_addresses(node: KnownNode) -> list[str]:
    """HOST:PORT each, as far as they can be dialled."""
    if node.announcement is None:
        return []
    return [join_address(*each) for each in decode_addresses(node_addresses(node.announcement))]


def payment(value: send.Payment) -> View:
    return {
        "payment_hash": value.payment_hash.hex(),
        "status": value.phase.value,
        "destination": value.destination.hex(),
        "amount_msat": value.amount_msat,
        "fee_msat": value.fee_msat,
        "parts": value.sent_parts,
        "pending_parts": len(value.parts),
        "preimage": value.preimage.hex() if value.preimage else None,
        "reason": value.last_reason if value.phase is send.Phase.FAILED else "",
    }
