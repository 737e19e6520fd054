"""Sending: one payment, in one part or several, tried again until it is settled or can no longer be.

A payment fails only once no part of it is pending: until then any part may still bring the preimage. The value is
stored in the transaction that adds its parts' HTLCs, so after a restart it knows every part that may be out there.
"""

from enum import Enum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment import blame, route
from node.payment.blame import ChannelDirection, Observation, Verdict
from node.payment.invoice import HintHop
from node.payment.relay import MAX_EXPIRY_BLOCKS
from node.payment.route import FinalPayload, Route

MAX_SENT_PARTS = 60  # over a payment's life: bounds retries whatever failures say


class Phase(Enum):
    RUNNING = "running"
    SETTLED = "settled"
    FAILED = "failed"


class Part(Struct, frozen=True):
    """A pending HTLC, with what its failure will need."""

    part_id: int
    route: Route
    shared_secrets: tuple[bytes, ...]

    @property
    def amount_msat(self) -> int:
        return route.amount_msat(self.route)

    @property
    def fee_msat(self) -> int:
        return route.fee_msat(self.route)


class Payment(Struct, frozen=True, kw_only=True):
    """One payment of ours, all of it: msgpack holds it."""

    payment_hash: bytes
    source: bytes  # our node id
    destination: bytes
    amount_msat: int
    max_fee_msat: int
    max_parts: int
    deadline_s: float  # no new part after it
    final_expiry_delta: int  # the payee's own, plus what hides it (BOLT 7, recommendations for routing)
    payment_secret: bytes | None = None
    payment_metadata: bytes | None = None
    keysend_preimage: bytes | None = None
    route_hints: tuple[tuple[HintHop, ...], ...] = ()

    phase: Phase = Phase.RUNNING
    searching: bool = False  # FindRoutes is out
    parts: tuple[Part, ...] = ()  # pending
    sent_parts: int = 0  # ever: also the next part's id
    settled_msat: int = 0
    settled_fee_msat: int = 0
    preimage: bytes | None = None
    last_reason: str = ""
    giving_up: bool = False  # no part will be added
    excluded_channels: tuple[ChannelDirection, ...] = ()
    excluded_nodes: tuple[bytes, ...] = ()
    suspects: tuple[ChannelDirection, ...] = ()

    @property
    def missing_msat(self) -> int:
        """What neither arrived nor is on its way."""
        return self.amount_msat - self.settled_msat - sum(part.amount_msat for part in self.parts)

    @property
    def is_running(self) -> bool:
        """Whether anything can still happen to it."""
        return self.phase is Phase.RUNNING or bool(self.parts)

    @property
    def fee_msat(self) -> int:
        """Paid and promised."""
        return self.settled_fee_msat + sum(part.fee_msat for part in self.parts)


class Start(Struct, frozen=True):
    """Begin, or go on after a restart: parts whose HTLC was never added must have been reported as failed before."""

    now_s: float


class RoutesFound(Struct, frozen=True, kw_only=True):
    """The answer to FindRoutes. `entropy` is 32 bytes that nothing else is made of."""

    routes: tuple[Route, ...]
    height: int
    entropy: bytes
    now_s: float


class NoRoute(Struct, frozen=True):
    """The other answer to FindRoutes."""

    reason: str


class PartFulfilled(Struct, frozen=True):
    part_id: int
    preimage: bytes


class ReturnPacket(Struct, frozen=True):
    """update_fail_htlc: bytes as hostile as any."""

    reason: bytes


class MalformedOnion(Struct, frozen=True):
    """update_fail_malformed_htlc, of our own peer."""

    failure_code: int


class LocalRefusal(Struct, frozen=True):
    """Our own channel did not take the HTLC, or dropped it uncommitted."""

    reason: str


class PartFailed(Struct, frozen=True):
    """The part's HTLC is irrevocably gone."""

    part_id: int
    failure: ReturnPacket | MalformedOnion | LocalRefusal
    now_s: float


class Timeout(Struct, frozen=True):
    """The deadline may have passed; also how a user gives up (with an infinite `now_s`)."""

    now_s: float


class FindRoutes(Struct, frozen=True, kw_only=True):
    """Answer with RoutesFound, whose amounts add up to `amount_msat` or less, or with NoRoute."""

    destination: bytes
    amount_msat: int
    max_fee_msat: int
    max_parts: int
    final_expiry_delta: int
    route_hints: tuple[tuple[HintHop, ...], ...]
    excluded_channels: tuple[ChannelDirection, ...]
    excluded_nodes: tuple[bytes, ...]


class SendPart(Struct, frozen=True, kw_only=True):
    """Offer this HTLC; answer, at once or later, with PartFulfilled or PartFailed."""

    part_id: int
    short_channel_id: int
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int
    onion: bytes


class Learn(Struct, frozen=True):
    """What the attempt showed about balances on the way."""

    observations: tuple[Observation, ...]


class UpdateChannel(Struct, frozen=True):
    """A channel_update from a failure: unchecked, for our own routes only, never to be passed on."""

    channel_update: bytes


class Settled(Struct, frozen=True):
    preimage: bytes
    fee_msat: int


class Failed(Struct, frozen=True):
    reason: str


class Report(Struct, frozen=True):
    """The payment's end, once."""

    result: Settled | Failed


Event = Start | RoutesFound | NoRoute | PartFulfilled | PartFailed | Timeout
Effect = FindRoutes | SendPart | Learn | UpdateChannel | Report
Effects = tuple[Effect, ...]
Step = tuple[Payment, Effects]


def step(payment: Payment, event: Event) -> Step:
    """Advance by one event."""
    match event:
        case Start(now_s=now_s):
            return _go_on(replace(payment, searching=False), now_s)
        case RoutesFound():
            return _send(replace(payment, searching=False), event)
        case NoRoute(reason=reason):
            return _end(_give_up(replace(payment, searching=False), reason))
        case PartFulfilled(part_id=part_id, preimage=preimage):
            return _fulfilled(payment, part_id, preimage)
        case PartFailed():
            return _failed(payment, event)
        case Timeout(now_s=now_s):
            return _end(_give_up(payment, "timed out")) if now_s >= payment.deadline_s else (payment, ())
        case _:
            assert_never(event)


def _go_on(payment: Payment, now_s: float) -> Step:
    """Look for routes for what is missing, unless the payment is at its end."""
    if payment.phase is not Phase.RUNNING or payment.searching or payment.missing_msat <= 0:
        return payment, ()
    if now_s >= payment.deadline_s:
        payment = _give_up(payment, "timed out")
    free_parts = min(payment.max_parts - len(payment.parts), MAX_SENT_PARTS - payment.sent_parts)
    if free_parts <= 0:
        payment = _give_up(payment, "too many parts")
    if payment.giving_up:
        return _end(payment)
    return replace(payment, searching=True), (_find_routes(payment, free_parts),)


def _find_routes(payment: Payment, max_parts: int) -> FindRoutes:
    return FindRoutes(
        destination=payment.destination,
        amount_msat=payment.missing_msat,
        max_fee_msat=payment.max_fee_msat - payment.fee_msat,
        max_parts=max_parts,
        final_expiry_delta=payment.final_expiry_delta,
        route_hints=payment.route_hints,
        excluded_channels=payment.excluded_channels,
        excluded_nodes=payment.excluded_nodes,
    )


def _send(payment: Payment, event: RoutesFound) -> Step:
    if payment.phase is not Phase.RUNNING or payment.giving_up or event.now_s >= payment.deadline_s:
        return _go_on(payment, event.now_s)
    unfit = _unfit(payment, event.routes)
    if unfit is not None:
        return _end(_give_up(payment, unfit))
    sent: list[SendPart] = []
    for found in event.routes:
        try:
            payment, part = _add_part(payment, found, event)
        except Refused as why:
            # the payee's metadata leaves no room: no other route would be shorter by as much
            payment = _give_up(payment, str(why))
            break
        sent.append(part)
    after, effects = _go_on(payment, event.now_s)
    return after, (*sent, *effects)


def _unfit(payment: Payment, routes: tuple[Route, ...]) -> str | None:
    """Why these routes must not be used: limits hold whatever found them."""
    if not routes:
        return "no route"
    amount_msat = sum(map(route.amount_msat, routes))
    if amount_msat > payment.missing_msat:
        return "routes for more than is missing"
    if payment.fee_msat + sum(map(route.fee_msat, routes)) > payment.max_fee_msat:
        return "routes above the fee limit"
    if len(payment.parts) + len(routes) > payment.max_parts:
        return "more routes than parts"
    if len(payment.parts) + len(routes) == payment.max_parts and amount_msat < payment.missing_msat:
        return "routes for less than is missing"
    if any(found[0].expiry_delta > MAX_EXPIRY_BLOCKS for found in routes):
        return "routes above the expiry limit"
    return None


def _add_part(payment: Payment, found: Route, event: RoutesFound) -> tuple[Payment, SendPart]:
    part_id = payment.sent_parts
    final = FinalPayload(
        total_msat=payment.amount_msat,
        payment_secret=payment.payment_secret,
        payment_metadata=payment.payment_metadata,
        keysend_preimage=payment.keysend_preimage,
    )
    session_key = route.session_key(event.entropy, part_id)
    onion = route.build_onion(found, event.height, payment.payment_hash, final, session_key)
    part = Part(part_id, found, onion.shared_secrets)
    send = SendPart(
        part_id=part_id,
        short_channel_id=found[0].short_channel_id,
        amount_msat=found[0].amount_msat,
        payment_hash=payment.payment_hash,
        cltv_expiry=event.height + found[0].expiry_delta,
        onion=onion.packet,
    )
    return replace(payment, parts=(*payment.parts, part), sent_parts=part_id + 1), send


def _fulfilled(payment: Payment, part_id: int, preimage: bytes) -> Step:
    assert sha256(preimage) == payment.payment_hash, "the channel lets no other through"
    payment, part = _take(payment, part_id)
    if part is None:
        return payment, ()
    learn = Learn(blame.judge_success(part.route, payment.source))
    settled = replace(
        payment,
        preimage=preimage,
        settled_msat=payment.settled_msat + part.amount_msat,
        settled_fee_msat=payment.settled_fee_msat + part.fee_msat,
    )
    if payment.preimage is not None:
        return settled, (learn,)
    # The first preimage proves the payment; the other parts are the payee's to claim.
    return replace(settled, phase=Phase.SETTLED), (learn, Report(Settled(preimage, settled.fee_msat)))


def _failed(payment: Payment, event: PartFailed) -> Step:
    payment, part = _take(payment, event.part_id)
    if part is None:
        return payment, ()
    verdict = _judge(payment, part, event)
    learnt: list[Effect] = []
    if verdict.observations:
        learnt.append(Learn(verdict.observations))
    if verdict.channel_update:
        learnt.append(UpdateChannel(verdict.channel_update))
    payment = _heed(payment, verdict)
    after, effects = _end(payment) if payment.giving_up else _go_on(payment, event.now_s)
    return after, (*learnt, *effects)


def _judge(payment: Payment, part: Part, event: PartFailed) -> Verdict:
    match event.failure:
        case ReturnPacket(reason=packet):
            return blame.judge(part.route, payment.source, part.shared_secrets, packet)
        case MalformedOnion(failure_code=code):
            return blame.judge_malformed(part.route, payment.source, code)
        case LocalRefusal(reason=reason):
            return blame.judge_local(part.route, payment.source, reason)
        case _:
            assert_never(event.failure)


def _heed(payment: Payment, verdict: Verdict) -> Payment:
    """Avoid what failed; what may have failed for this amount or policy only, when it does so twice."""
    channels, suspects = verdict.channels, payment.suspects
    if verdict.suspect is not None:
        if verdict.suspect in suspects:
            channels = (*channels, verdict.suspect)
        else:
            suspects = (*suspects, verdict.suspect)
    heeded = replace(
        payment,
        last_reason=payment.last_reason if payment.giving_up else verdict.reason,
        suspects=suspects,
        excluded_channels=(*payment.excluded_channels, *channels),
        excluded_nodes=payment.excluded_nodes
        if verdict.node is None
        else (*payment.excluded_nodes, verdict.node),
    )
    return _give_up(heeded, verdict.reason) if verdict.is_final else heeded


def _take(payment: Payment, part_id: int) -> tuple[Payment, Part | None]:
    """The part leaves the pending ones; None where it had left before (answers may be repeated)."""
    part = next((part for part in payment.parts if part.part_id == part_id), None)
    return replace(payment, parts=tuple(p for p in payment.parts if p.part_id != part_id)), part


def _give_up(payment: Payment, reason: str) -> Payment:
    if payment.giving_up:
        return payment
    last = f" (last: {payment.last_reason})" if payment.last_reason not in ("", reason) else ""
    return replace(payment, giving_up=True, last_reason=reason + last)


def _end(payment: Payment) -> Step:
    """Failed, once nothing is pending that could still succeed."""
    if payment.phase is not Phase.RUNNING or payment.parts:
        return payment, ()
    return replace(payment, phase=Phase.FAILED), (Report(Failed(payment.last_reason)),)
