"""Payments to us: invoices, the HTLCs that pay them, and keysend."""

import asyncio
from functools import partial
from typing import Protocol, assert_never

import msgspec

from node.backend.htlcs import Htlcs
from node.backend.journal import Journal
from node.backend.store import Store, add, put
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment import invoice as bolt11
from node.payment import receive, relay
from node.payment.htlc import FailHtlc, SettleHtlc
from node.payment.invoice_fields import HintHop
from node.runtime import logs
from node.runtime.runtime import Runtime
from node.wire.features import Feature, Features

MIN_FINAL_CLTV_EXPIRY_DELTA = 24  # above 2R+G+S of BOLT 2, so that a claim on the chain is in time
HOLD_FINAL_CLTV_EXPIRY_DELTA = MIN_FINAL_CLTV_EXPIRY_DELTA + 144  # what is held can be so for a day
HELD_UNTIL_S = 1 << 62  # as an expiry: a held set outlives its invoice's
MAX_OPEN_INVOICES = 1_000_000  # kept in memory while they can be paid
ADD = add("invoices")
PUT = put("invoices")
OPEN_STATES = (receive.Phase.OPEN.value, receive.Phase.HELD.value)
MAX_EXPIRY_S = 10 * 365 * 86_400
INVOICE_FEATURES = Features.of(
    compulsory=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET), optional=(Feature.BASIC_MPP,)
)

log = logs.get("receive")


class Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """An invoice's row: what was asked, and what came."""

    payment_hash: bytes
    state: receive.PaymentIn
    created_s: float
    bolt11: str = ""
    description: str = ""
    received_msat: int = 0
    received_s: float = 0.0
    keysend: bool = False

    @property
    def is_paid(self) -> bool:
        return self.state.preimage is not None


class Sale(msgspec.Struct, frozen=True):
    """What an invoice sells; without a hash, the preimage is drawn. Who gives a hash alone settles with its preimage."""

    payment_hash: bytes | None = None
    preimage: bytes | None = None
    hold: bool = False

    @classmethod
    def of(cls, preimage: bytes, *, hold: bool) -> "Sale":
        return cls(sha256(preimage), preimage, hold)


class Hints(Protocol):
    """Where the ends of unannounced channels are named."""

    def route_hints(self) -> tuple[tuple[HintHop, ...], ...]: ...


class Receiving:
    """Implements `htlcs.Payee`."""

    def __init__(
        self, runtime: Runtime, journal: Journal, htlcs: Htlcs, hints: Hints, node_secret: bytes, network: str
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._htlcs = htlcs
        self._hints = hints
        self._node_secret = node_secret
        self._network = network
        self.node_id = b""
        self._store: Store
        self._open: dict[bytes, Received] = {}  # those that may still be paid
        self._waiting: dict[bytes, None] = {}  # sets of parts that are not complete
        self.count = 0
        self.received_msat = 0

    def load(self, store: Store) -> None:
        """Take up what may still be paid or is held; paid ones need nothing: a claim was stored with its HTLCs."""
        self._store = store
        now_s = int(self._runtime.now())
        for (data,) in store.rows("SELECT data FROM invoices WHERE open_until_s > ?", (now_s,)):
            assert isinstance(data, bytes)
            row = msgspec.msgpack.decode(data, type=Received)
            self._open[row.payment_hash] = row
            if payment_waits(row.state):
                self._waiting[row.payment_hash] = None

    # invoices

    async def invoice(self, amount_msat: int | None, description: str, expiry_s: int, sale: Sale) -> Received:
        """A new invoice, durable. Raises Refused for what an invoice can't say."""
        if not 0 < expiry_s <= MAX_EXPIRY_S:
            raise Refused(f"expiry_s: 1 to {MAX_EXPIRY_S}")
        if len(self._open) >= MAX_OPEN_INVOICES:
            self._forget_expired()
        if len(self._open) >= MAX_OPEN_INVOICES:
            raise Refused("too many open invoices")
        if sale.payment_hash is None:
            sale = Sale.of(self._runtime.entropy(32), hold=sale.hold)
        elif await self.find(sale.payment_hash) is not None:
            raise Refused("preimage: there was an invoice with it, or a payment")
        assert sale.payment_hash is not None
        if sale.payment_hash in self._open:
            raise Refused("there is an invoice with this preimage")
        made = self._made(amount_msat, description, expiry_s, sale.payment_hash, hold=sale.hold)
        text = bolt11.encode(made, self._node_secret)
        promise = receive.promise(made, sale.preimage, hold=sale.hold)
        state = receive.PaymentIn(payment_hash=made.payment_hash, promise=promise)
        row = Received(made.payment_hash, state, self._runtime.now(), text, description)
        self._open[made.payment_hash] = row
        self._write(row)
        await self._durable()
        return row

    def _made(
        self, amount_msat: int | None, description: str, expiry_s: int, payment_hash: bytes, *, hold: bool
    ) -> bolt11.Invoice:
        return bolt11.Invoice(
            network=self._network if self._network != "mainnet" else "bitcoin",
            amount_msat=amount_msat,
            timestamp_s=int(self._runtime.now()),
            node_id=self.node_id,
            payment_hash=payment_hash,
            payment_secret=self._runtime.entropy(32),
            description=description,
            expiry_s=expiry_s,
            min_final_cltv_expiry_delta=HOLD_FINAL_CLTV_EXPIRY_DELTA if hold else MIN_FINAL_CLTV_EXPIRY_DELTA,
            route_hints=self._hints.route_hints(),
            features=INVOICE_FEATURES,
        )

    async def settle(self, preimage: bytes) -> Received:
        """Claim what is held, durably; doing it again changes nothing. Raises Refused."""
        return await self._command(sha256(preimage), receive.Settle(preimage, self._htlcs.late_height))

    async def cancel(self, payment_hash: bytes) -> Received:
        """Give back what an unpaid invoice has received, durably, and take nothing for it any more. Raises Refused."""
        return await self._command(payment_hash, receive.Cancel(self._htlcs.late_height))

    async def _command(self, payment_hash: bytes, event: receive.Settle | receive.Cancel) -> Received:
        row = self._open.get(payment_hash)
        if row is None:
            await self._durable()  # what was just decided is found too
            row = await self.find(payment_hash)
        if row is None:
            raise Refused("no such invoice")
        row = self._advance(row, event)
        await self._durable()
        return row

    async def _durable(self) -> None:
        """Wait until all that was decided so far is on the disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal.reply(partial(_finish, done))
        await done

    def unsettled(self) -> list[Received]:
        """Invoices that may still be paid, and those whose payment is held; the newest last."""
        return list(self._open.values())

    def _forget_expired(self) -> None:
        """Nothing is accepted for them any more; the database still has them."""
        now_s = self._runtime.now()
        for payment_hash, row in list(self._open.items()):
            promise = row.state.promise
            if promise is not None and promise.expires_at_s < now_s and payment_hash not in self._waiting:
                del self._open[payment_hash]

    async def find(self, payment_hash: bytes) -> Received | None:
        """What became of an invoice, or of a keysend."""
        if (row := self._open.get(payment_hash)) is not None:
            return row
        query = partial(self._store.rows, "SELECT data FROM invoices WHERE payment_hash = ?", (payment_hash,))
        rows = await self._runtime.run_blocking("store", query)
        if not rows:
            return None
        data = rows[0][0]
        assert isinstance(data, bytes)
        return msgspec.msgpack.decode(data, type=Received)

    # HTLCs

    def part_arrived(self, htlc: relay.IncomingHtlc, final: relay.Final) -> None:
        payment_hash = htlc.payment_hash
        row = self._open.get(payment_hash)
        if row is None:
            row = Received(payment_hash, receive.PaymentIn(payment_hash=payment_hash), self._runtime.now())
        event = receive.PartArrived(
            htlc=htlc,
            payload=final.payload,
            shared_secret=final.shared_secret,
            height=self._htlcs.late_height,
            now_s=self._runtime.now(),
        )
        self._advance(row, event)

    def sweep(self) -> None:
        """Once a second: sets whose missing parts did not come in time, or that can be held no longer."""
        tick = receive.Tick(self._runtime.now(), self._htlcs.late_height)
        for payment_hash in list(self._waiting):
            self._advance(self._open[payment_hash], tick)

    def _advance(self, row: Received, event: receive.Event) -> Received:
        state, effects = receive.step(row.state, event)
        row = msgspec.structs.replace(row, state=state)
        if payment_waits(state):
            self._waiting[row.payment_hash] = None
        else:
            self._waiting.pop(row.payment_hash, None)
        if state.promise is not None and state.status in OPEN_STATES:
            self._open[row.payment_hash] = row
        else:
            self._open.pop(row.payment_hash, None)
        for effect in effects:
            match effect:
                case receive.StorePayment():
                    self._write(row)
                case receive.StorePaymentReceived(_, _, amount_msat, keysend):
                    row = msgspec.structs.replace(
                        row, received_msat=amount_msat, received_s=self._runtime.now(), keysend=keysend
                    )
                    self._write(row)
                    self._count(row)
                case SettleHtlc():
                    self._htlcs.settle(effect)
                case FailHtlc():
                    self._htlcs.fail(effect)
                case _:
                    assert_never(effect)
        return row

    def _count(self, row: Received) -> None:
        self.count += 1
        self.received_msat += row.received_msat

    def _write(self, row: Received) -> None:
        promise = row.state.promise
        open_until_s = 0
        if row.state.status == receive.Phase.HELD.value:
            open_until_s = HELD_UNTIL_S
        elif promise is not None and row.state.status == receive.Phase.OPEN.value:
            open_until_s = promise.expires_at_s
        data = msgspec.msgpack.encode(row)
        # who paid an invoice knows its preimage, and may send more with it: the invoice's record stays
        self._journal.write(ADD if row.keysend else PUT, row.payment_hash, open_until_s, data)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def payment_waits(state: receive.PaymentIn) -> bool:
    """Whether HTLCs are kept until others complete the set, or until somebody settles or cancels it."""
    return bool(state.parts) and state.preimage is None
