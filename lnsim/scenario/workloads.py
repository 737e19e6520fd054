"""What happens in a run, traffic and faults alike: each is one entry of the file's `workloads`, told apart by `run`.

`start_s` counts from the moment everything is built; `duration_s` None means to the end of the scenario.
"""

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
Rate = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
AmountRange = tuple[Positive, Positive]

HUB = "hub"  # the node under test, where a workload names payers and payees
ANY_FRONTEND = "frontend"  # a fault's `what`: any of them, drawn from the seed
BACKEND = "backend"


class Timed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="run"):
    start_s: Seconds = 0.0


class Lasting(Timed, frozen=True, kw_only=True):
    duration_s: Annotated[float, Meta(gt=0)] | None = None


class Payments(Lasting, frozen=True, kw_only=True, tag="payments"):
    """Payments at a rate, or by `users` who each begin the next one when the last has ended."""

    payers: tuple[str, ...]  # groups, or hub
    payees: tuple[str, ...]
    rate_per_s: Rate | None = None
    users: Positive | None = None
    ramp_s: Seconds = 0.0  # from nothing to the full rate, or the full number of users
    amount_msat: AmountRange = (1_000, 1_000_000)
    amounts: str = "log"  # log or uniform, between the two
    keysend: Share = 0.5  # the others pay invoices
    multipart: Share = 0.0  # payments that are too large for any one channel of their payer
    max_in_flight: Positive = 200
    timeout_s: Annotated[float, Meta(gt=0)] = 60.0


class Hodl(Lasting, frozen=True, kw_only=True, tag="hodl"):
    """Payments whose receivers hold their HTLCs, `in_flight` at a time, and then claim or (a share) fail them."""

    payers: tuple[str, ...]
    payees: tuple[str, ...]
    in_flight: Positive = 50
    hold_s: Rate = 5.0
    fail: Share = 0.5
    amount_msat: AmountRange = (1_000, 10_000)


class ConnectionChurn(Lasting, frozen=True, kw_only=True, tag="connection_churn"):
    """Light peers of a group leave and others come, each time with a new handshake."""

    group: str
    rate_per_s: Rate = 10.0
    ramp_s: Seconds = 0.0


class ReconnectStorm(Timed, frozen=True, kw_only=True, tag="reconnect_storm"):
    """A share of a group's connections is cut at once, and all of these peers come back as fast as they can."""

    group: str
    share: Share = 1.0
    every_s: Rate | None = None


class SyncStorm(Timed, frozen=True, kw_only=True, tag="sync_storm"):
    """Every light peer of a group asks for the whole graph at once, by ranges and ids or by a timestamp filter."""

    group: str
    queries: Share = 0.5  # by query_channel_range and query_short_channel_ids; the others by filter
    every_s: Rate | None = None


class GossipStorm(Lasting, frozen=True, kw_only=True, tag="gossip_storm"):
    """Light peers of a group send channel_updates of the background graph: new ones, repeated ones, invalid ones."""

    group: str
    rate_per_s: Rate = 100.0
    ramp_s: Seconds = 0.0
    duplicate: Share = 0.2
    invalid: Share = 0.1


class ChannelChurn(Lasting, frozen=True, kw_only=True, tag="channel_churn"):
    """Peers of a group open further channels with the node, use them, and close them again."""

    group: str
    rate_per_s: Rate = 0.5
    capacity_sat: Annotated[int, Meta(ge=20_000)] = 200_000
    open_for_s: Rate = 5.0


class Rude(Lasting, frozen=True, kw_only=True, tag="rude"):
    """Connections that misbehave, each in one way drawn from `ways`.

    garbage: bytes that are no handshake; half_handshake: silence after act one; slow_reader: asks for everything and
    reads nothing; ping_flood; oversized_query: a query for all ids again and again; fake_open: open_channel, then
    silence.
    """

    rate_per_s: Rate = 10.0
    ways: tuple[str, ...] = (
        "garbage",
        "half_handshake",
        "slow_reader",
        "ping_flood",
        "oversized_query",
        "fake_open",
    )
    max_open: Positive = 200


class Fault(Timed, frozen=True, kw_only=True):
    every_s: Rate | None = None  # again and again, to the end of the scenario


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """SIGKILL; the supervisor starts it again."""

    what: str  # frontend (any), f1, f2 ..., backend


class Restart(Fault, frozen=True, kw_only=True, tag="restart"):
    """SIGTERM, and started again."""

    what: str


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """SIGSTOP, and SIGCONT after `for_s`."""

    what: str
    for_s: Rate = 2.0


class RollingRestart(Timed, frozen=True, kw_only=True, tag="rolling_restart"):
    """One frontend after the other is stopped and started, the next once the last is back; then the backend, if asked."""

    pause_s: Seconds = 2.0
    backend: bool = False


class LinkFault(Fault, frozen=True, kw_only=True, tag="link"):
    """The link between a frontend and the backend: cut (closed, and refused), clogged (nothing moves), or delayed."""

    how: str  # cut, clog or delay
    what: str = ANY_FRONTEND
    for_s: Rate = 2.0
    delay_s: Rate = 0.1


class SlowDisk(Fault, frozen=True, kw_only=True, tag="slow_disk"):
    """Every commit of the backend takes this much longer."""

    delay_s: Rate = 0.05
    for_s: Rate = 5.0


class TorRestart(Fault, frozen=True, kw_only=True, tag="tor_restart"):
    """The tor that serves the onion service: SIGTERM, and started again at once."""


class TorKill(Fault, frozen=True, kw_only=True, tag="tor_kill"):
    """SIGKILL to that tor, which is started again after `for_s`."""

    for_s: Rate = 3.0


class TorControlCut(Fault, frozen=True, kw_only=True, tag="tor_control_cut"):
    """lntor's control connection is closed, and refused for `for_s`."""

    for_s: Rate = 2.0


class TorCircuits(Fault, frozen=True, kw_only=True, tag="tor_circuits"):
    """That tor closes all circuits of the service's clients, and the connections on them."""


class Mine(Fault, frozen=True, kw_only=True, tag="mine"):
    blocks: Positive = 1


class Reorg(Fault, frozen=True, kw_only=True, tag="reorg"):
    """The chain takes back `depth` blocks and gets `depth` + 1 others."""

    depth: Annotated[int, Meta(ge=1, le=100)] = 1


class FeeSpike(Fault, frozen=True, kw_only=True, tag="fee_spike"):
    feerate_per_kw: Annotated[int, Meta(ge=253)] = 10_000
    for_s: Rate = 10.0


class BlockStall(Fault, frozen=True, kw_only=True, tag="block_stall"):
    """No block for so long, whatever the chain's interval."""

    for_s: Rate = 10.0


Workload = (
    Payments
    | Hodl
    | ConnectionChurn
    | ReconnectStorm
    | SyncStorm
    | GossipStorm
    | ChannelChurn
    | Rude
    | Kill
    | Restart
    | Pause
    | RollingRestart
    | LinkFault
    | SlowDisk
    | TorRestart
    | TorKill
    | TorControlCut
    | TorCircuits
    | Mine
    | Reorg
    | FeeSpike
    | BlockStall
)

TorFault = TorRestart | TorKill | TorControlCut | TorCircuits
