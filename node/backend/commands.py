"""What a user can ask of the node. The HTTP API, the simulator and the tests all come through here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from node.backend import cluster, views
from node.backend.channels import Record
from node.backend.receiving import OPEN_STATES, Sale
from node.backend.views import View
from node.channel import events as ev
from node.channel.closing_model import Feerates
from node.crypto.keys import is_valid_point
from node.errors import MalformedMessage, Refused
from node.payment import invoice as bolt11
from node.payment import order
from node.payment.send import Payment
from node.runtime.addresses import split_address
from node.wire.features import ChannelType

if TYPE_CHECKING:
    from node.backend.backend import Backend

COMMAND_TIMEOUT_S = 30.0
MAX_EXTRA_EXPIRY_DELTA = 144  # BOLT 7, recommendations for routing: hides how far away the payee is
DEFAULT_FEE_PPM = 10_000  # of the amount, where a payment names no limit
DEFAULT_FEE_MSAT = 10_000
MAX_LISTED = 10_000  # payments in one answer: some three megabytes


class Commands:
    """Every method raises Refused with a sentence for the user."""

    def __init__(self, backend: "Backend") -> None:
        self._node = backend

    # the node

    async def getinfo(self) -> View:
        node = self._node
        forwards = node.htlcs.counters
        return {
            "node_id": node.node_id.hex(),
            "alias": node.config.alias,
            "network": node.config.network,
            "block_height": node.chain.height,
            "chain_failure": node.chain.failure,
            "chain_trouble": trouble.text if (trouble := node.chain.outlook.trouble) else None,
            "epoch": node.epoch,
            "version": node.version,
            "addresses": list(node.announcer.addresses),
            "frontends": [views.frontend(link) for link in node.switchboard.links.values()],
            "graph": {
                "channels": len(node.graph.channels),
                "nodes": len(node.graph.nodes),
                "sequence": node.graph.sequence,
            },
            "forwards": {
                "settled": forwards.settled,
                "failed": forwards.failed,
                "pending": node.htlcs.pending_forwards,
                "fee_msat": forwards.fee_msat,
            },
            "sent": {
                "settled": node.sending.settled,
                "failed": node.sending.failed,
                "pending": node.sending.pending,
            },
            "received": {"count": node.receiving.count, "msat": node.receiving.received_msat},
            "store": {"commits": node.store.commits, "lease_left_s": node.store.lease_left_s},
            "peers": sum(1 for peer in node.switchboard.peers.values() if peer.session),
            "channels": len(node.channels.by_id),
        }

    async def onion_address(self, *, address: str = "", announce: bool = True) -> View:
        """For lntor, which says again and again that peers reach us there, or no longer do; no address: only an answer."""
        node = self._node
        if not node.may_speak():
            raise Refused("onion_address: this backend does not lead; ask the one that does")
        try:
            announced = node.announcer.tell_onion(address, announce=announce)
        except Refused as error:
            raise Refused(f"onion_address: {error}") from error
        return {"address": address, "announced": announced}

    async def backup(self, *, target: str) -> View:
        """A copy of the database, while everything goes on; `target` is a new file on the backend's host."""
        if not Path(target).is_absolute():
            raise Refused("target: name the file by its whole path")
        node = self._node
        started_s, before = node.runtime.monotonic(), node.store.position
        await node.runtime.run_blocking("backup", partial(node.store.backup, Path(target)))
        return {
            "target": target,
            "epoch": before.epoch,
            "commits": before.commits,
            "duration_ms": 1_000 * (node.runtime.monotonic() - started_s),
        }

    async def cluster(self) -> View:
        """The backend and its frontends: load, versions, state."""
        return cluster.cluster(self._node)

    async def drain(self, *, frontend: str, over_s: float = 60.0) -> View:
        """Have a frontend take no new peers and let those that it has go, evenly over this time."""
        return cluster.drain(self._node, frontend, over_s)

    async def undrain(self, *, frontend: str) -> View:
        return cluster.drain(self._node, frontend, None)

    async def stop(self) -> View:
        self._node.stop_requested.set()
        return {}

    # peers

    async def peers(self) -> list[View]:
        node = self._node
        known = dict.fromkeys((*node.switchboard.peers, *node.channels.by_peer))
        return [
            views.peer(node.switchboard.peer(node_id), len(node.channels.of_peer(node_id)))
            for node_id in known
        ]

    async def connect(self, *, node_id: str, address: str = "") -> View:
        """`node_id` may also be the whole ID@HOST:PORT; without an address, at those that are known."""
        if not address:
            node_id, _, address = node_id.partition("@")
        dialler, peer = self._node.dialler, _node_id(node_id)
        session = await (dialler.connect(peer, _address(address)) if address else dialler.reach(peer))
        return {"node_id": node_id, "frontend": session.link.frontend_id, "session": session.name}

    async def disconnect(self, *, node_id: str) -> View:
        if self._node.switchboard.session_of(_node_id(node_id)) is None:
            raise Refused("this peer is not connected")
        self._node.switchboard.end_session(_node_id(node_id), "asked for")
        return {}

    # channels

    async def open(
        self,
        *,
        node_id: str,
        funding_sat: int,
        push_msat: int = 0,
        announce: bool = True,
        channel_type: str | None = None,
        scid_alias: bool = False,
    ) -> View:
        session = self._node.switchboard.session_of(_node_id(node_id))
        if session is None:
            raise Refused("connect to this peer first")
        kind = _channel_type(channel_type, scid_alias=scid_alias)
        anchors = kind is None or kind.anchors
        record = await self._node.openings.open(
            session,
            funding_sat=funding_sat,
            push_msat=push_msat,
            feerate_per_kw=self._node.chain.commitment_feerate(anchors=anchors),
            announce=announce,
            kind=kind,
        )
        assert record.channel.funding is not None
        await self._node.chain.tried(record.channel.funding.txid)  # who mines next finds it in the mempool
        return {
            "channel_id": record.channel.channel_id.hex(),
            "funding_txid": record.channel.funding.txid[::-1].hex(),
        }

    async def channels(self, *, node_id: str | None = None) -> list[View]:
        channels = self._node.channels
        records = list(channels.by_id.values()) if node_id is None else channels.of_peer(_node_id(node_id))
        return [views.channel(record, channels) for record in records]

    async def close(self, *, channel_id: str, feerate_per_kw: int | None = None) -> View:
        """Close with the peer's consent; returns once that is on its way."""
        record = self._record(channel_id)
        rate = feerate_per_kw or self._node.chain.feerate_per_kw
        feerates = Feerates(rate, max(253, rate // 2), rate * 2)
        script = await self._node.client.new_script()
        await self._command(record, lambda command: ev.Shutdown(command, script, feerates))
        return {"channel_id": channel_id}

    async def forceclose(self, *, channel_id: str, reason: str = "asked for") -> View:
        await self._command(self._record(channel_id), lambda command: ev.ForceClose(command, reason))
        return {"channel_id": channel_id}

    async def _command(self, record: Record, event: Callable[[int], ev.Shutdown | ev.ForceClose]) -> None:
        openings = self._node.openings
        command = openings.new_command()
        reply = openings.expect(command)
        self._node.channels.apply(record, event(command))
        await openings.answer(reply, COMMAND_TIMEOUT_S)

    def _record(self, channel_id: str) -> Record:
        record = self._node.channels.by_id.get(_hex(channel_id, "channel_id"))
        if record is None:
            raise Refused("no such channel")
        return record

    # payments

    async def invoice(
        self,
        *,
        amount_msat: int | None,
        description: str = "",
        expiry_s: int = 3_600,
        preimage: str | None = None,
        hold: bool = False,
        payment_hash: str | None = None,
    ) -> View:
        """With `hold`, what is paid is kept until `settle` or `cancel`; then the preimage may be somebody else's."""
        sale = _sale(preimage, payment_hash, hold=hold)
        row = await self._node.receiving.invoice(amount_msat, description, expiry_s, sale)
        made: View = {"payment_hash": row.payment_hash.hex(), "bolt11": row.bolt11}
        known = row.state.promise.preimage if row.state.promise else None
        if hold and known is not None:
            made["preimage"] = known.hex()
        return made

    async def settle(self, *, preimage: str) -> View:
        """Claim what is held for this preimage; durable once it returns."""
        return views.received(await self._node.receiving.settle(_hex(preimage, "preimage")))

    async def cancel(self, *, payment_hash: str) -> View:
        """Give back what is held, and take nothing more for this invoice."""
        return views.received(await self._node.receiving.cancel(_hex(payment_hash, "payment_hash")))

    async def invoices(self, *, state: str | None = None, count: int = MAX_LISTED) -> list[View]:
        """The newest of those that are open or held."""
        if not 0 < count <= MAX_LISTED:
            raise Refused(f"count: 1 to {MAX_LISTED}")
        if state not in (None, *OPEN_STATES):
            raise Refused(
                f"state: {' or '.join(OPEN_STATES)}; `received` finds any invoice by its payment_hash"
            )
        rows = [row for row in self._node.receiving.unsettled() if state in (None, row.state.status)]
        return [views.received(row) for row in rows[-count:]]

    async def pay(
        self,
        *,
        bolt11: str,
        amount_msat: int | None = None,
        max_fee_msat: int | None = None,
        max_parts: int = 8,
        timeout_s: float = 60.0,
    ) -> View:
        node, now_s = self._node, self._node.runtime.now()
        invoice = _decode(bolt11)
        asked_msat = amount_msat or invoice.amount_msat or 0
        payment = order.pay_invoice(
            invoice,
            source=node.node_id,
            network=node.invoice_network,
            amount_msat=amount_msat,
            max_fee_msat=_fee_limit(asked_msat) if max_fee_msat is None else max_fee_msat,
            max_parts=max_parts,
            extra_expiry_delta=node.runtime.random.randrange(MAX_EXTRA_EXPIRY_DELTA),
            now_s=now_s,
            deadline_s=now_s + timeout_s,
        )
        return await self._run(payment)

    async def keysend(
        self, *, node_id: str, amount_msat: int, max_fee_msat: int | None = None, timeout_s: float = 60.0
    ) -> View:
        node = self._node
        payment = order.pay_keysend(
            _node_id(node_id),
            source=node.node_id,
            amount_msat=amount_msat,
            preimage=node.runtime.entropy(32),
            max_fee_msat=_fee_limit(amount_msat) if max_fee_msat is None else max_fee_msat,
            extra_expiry_delta=node.runtime.random.randrange(MAX_EXTRA_EXPIRY_DELTA),
            deadline_s=node.runtime.now() + timeout_s,
        )
        return await self._run(payment)

    async def _run(self, payment: Payment) -> View:
        self._node.chain.outlook.check_htlcs()
        started_s = self._node.runtime.monotonic()
        ended, result = await self._node.sending.pay(payment)
        return {
            "status": "failed" if result.preimage is None else "settled",
            "payment_hash": payment.payment_hash.hex(),
            "preimage": result.preimage.hex() if result.preimage else None,
            "fee_msat": result.fee_msat,
            "parts": ended.sent_parts,
            "duration_ms": 1_000 * (self._node.runtime.monotonic() - started_s),
            "reason": result.reason,
        }

    async def payments(self, *, count: int = MAX_LISTED) -> list[View]:
        if not 0 < count <= MAX_LISTED:
            raise Refused(f"count: 1 to {MAX_LISTED}")
        return [views.payment(payment) for payment in await self._node.sending.payments(count)]

    async def received(self, *, payment_hash: str) -> View:
        row = await self._node.receiving.find(_hex(payment_hash, "payment_hash"))
        if row is None:
            raise Refused("no such payment")
        return views.received(row)

    async def decode(self, *, bolt11: str) -> View:
        invoice = _decode(bolt11)
        return {
            "network": invoice.network,
            "amount_msat": invoice.amount_msat,
            "payment_hash": invoice.payment_hash.hex(),
            "node_id": invoice.node_id.hex(),
            "description": invoice.description,
            "expires_at_s": invoice.expires_at_s,
            "min_final_cltv_expiry_delta": invoice.min_final_cltv_expiry_delta,
            "route_hints": len(invoice.route_hints),
        }

    async def graph(self) -> View:
        graph = self._node.graph
        channels = [
            {
                "short_channel_id": views.short_channel_id(channel.short_channel_id),
                "node_1": channel.node_id_1.hex(),
                "node_2": channel.node_id_2.hex(),
                "capacity_sat": channel.capacity_sat,
                "updates": [channel.timestamp(0), channel.timestamp(1)],
            }
            for channel in graph.channels.values()
        ]
        return {"channels": channels, "nodes": [views.known_node(node) for node in graph.nodes.values()]}


CALLS = tuple(name for name in vars(Commands) if not name.startswith("_"))
# What may be asked with the password for reading: nothing that moves money, changes a state, or is a secret.
READS = frozenset(
    {"getinfo", "cluster", "peers", "channels", "invoices", "payments", "received", "decode", "graph"}
)

# What may be asked with the password of a host that runs lntor, which strangers may reach and even take over.
TELLS = frozenset({"onion_address"})


def _hex(text: str, name: str, size: int = 32) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != size:
        raise Refused(f"{name}: {2 * size} hex digits are needed")
    return data


def _node_id(text: str) -> bytes:
    node_id = _hex(text, "node_id", 33)
    if not is_valid_point(node_id):
        raise Refused("node_id: no point of the curve")
    return node_id


def _address(text: str) -> str:
    split_address(text)
    return text


def _decode(text: str) -> bolt11.Invoice:
    try:
        return bolt11.decode(text)
    except MalformedMessage as error:
        raise Refused(f"bolt11: {error}") from error


def _sale(preimage: str | None, payment_hash: str | None, *, hold: bool) -> Sale:
    if payment_hash is None:
        return Sale(hold=hold) if preimage is None else Sale.of(_hex(preimage, "preimage"), hold=hold)
    if preimage is not None or not hold:
        raise Refused(
            "payment_hash: instead of a preimage, and with hold alone: `settle` then brings the preimage"
        )
    return Sale(_hex(payment_hash, "payment_hash"), None, hold)


def _channel_type(text: str | None, *, scid_alias: bool) -> ChannelType | None:
    if text is None and not scid_alias:
        return None
    if text not in (None, "anchors", "static_remotekey"):
        raise Refused("channel_type: anchors or static_remotekey")
    return ChannelType(anchors=text != "static_remotekey", scid_alias=scid_alias)


def _fee_limit(amount_msat: int) -> int:
    return max(DEFAULT_FEE_MSAT, amount_msat * DEFAULT_FEE_PPM // 1_000_000)
