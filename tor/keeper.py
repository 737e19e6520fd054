"""Keeps a service true: which targets tor should have, what it has, when to tell it again. No IO, no clock."""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tor.config import Target
from tor.plan import NOWHERE, port_lines

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 15.0
REFUSED = "the network's directories refuse what tor publishes: is this host's clock right?"
ELSEWHERE = "another tor serves this key, too: clients reach whichever published last; end one of the two"


class Rules(Struct, frozen=True):
    """What does not change while a keeper lives. `replace_s`: least time between changes of targets, or 0."""

    port: int
    rise: int
    fall: int
    replace_s: float


class Watched(Struct, frozen=True):
    """A target and what is known of it. `up` is None until its first check; `streak` counts checks that say otherwise."""

    address: str
    weight: int
    up: bool | None = None
    streak: int = 0
    drained: bool = False
    since_s: float = 0.0
    detail: str = ""


class State(Struct, frozen=True):
    rules: Rules
    targets: tuple[Watched, ...]
    term: int = 0  # counts control connections: what an old one says is void
    connected: bool = False
    told: bool = False  # on this connection; what tor had before may be of another configuration
    serving: tuple[str, ...] | None = None  # the port lines that tor has
    busy: bool = False
    applied_s: float = 0.0
    retry_at_s: float = 0.0
    retries: int = 0
    address: str = ""
    tor_version: str = ""
    circuits: int = 0
    problem: str = ""
    published_s: float | None = None
    uploads: int = 0
    failed_uploads: int = 0
    refused: bool = False  # an upload, and none was taken on this connection
    elsewhere_s: float | None = None  # when another tor was last seen to serve this key
    compared_s: float | None = None  # when it could last be told whether one does


class Connected(Struct, frozen=True):
    tor_version: str


class Lost(Struct, frozen=True):
    why: str


class Applied(Struct, frozen=True):
    term: int
    ports: tuple[str, ...]
    address: str


class Failed(Struct, frozen=True):
    term: int
    why: str


class Seen(Struct, frozen=True):
    """What tor said when asked: the ports that it has, or None where the service is not there."""

    term: int
    ports: tuple[str, ...] | None
    circuits: int


class Probed(Struct, frozen=True):
    address: str
    ok: bool
    detail: str


class Published(Struct, frozen=True):
    address: str
    ok: bool


class Elsewhere(Struct, frozen=True):
    """Another tor was seen to serve this key."""


class Compared(Struct, frozen=True):
    """What the network has was compared with what is known to be ours."""


class Drain(Struct, frozen=True):
    address: str
    on: bool


class Retarget(Struct, frozen=True):
    targets: tuple[Target, ...]


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = (
    Connected
    | Lost
    | Applied
    | Failed
    | Seen
    | Probed
    | Published
    | Elsewhere
    | Compared
    | Drain
    | Retarget
    | Tick
)


class Apply(Struct, frozen=True):
    """Have tor serve with these port lines; answered by Applied or Failed of the same term."""

    term: int
    ports: tuple[str, ...]
    replaces: bool


class Announce(Struct, frozen=True):
    address: str


class Note(Struct, frozen=True):
    """A line for the log."""

    level: str
    event: str
    facts: dict[str, str | int | float | tuple[str, ...]]


Effect = Apply | Announce | Note
Effects = tuple[Effect, ...]


def new_state(rules: Rules, targets: tuple[Target, ...]) -> State:
    return State(rules, tuple(Watched(target.address, target.weight) for target in targets))


def step(state: State, event: Event, now_s: float) -> tuple[State, Effects]:
    """Advance by one event."""
    after, effects = _step(state, event, now_s)
    settled, more = _settle(after, now_s)
    return settled, effects + more


def wanted(state: State) -> tuple[str, ...] | None:
    """The port lines that tor should have; None while a target has not been checked yet."""
    if any(target.up is None for target in state.targets):
        return None
    open_to_new = [target for target in state.targets if not target.drained]
    # None healthy: our checks may be what is wrong, and a wrong target costs no more than none.
    chosen = [target for target in open_to_new if target.up] or open_to_new
    return port_lines(state.rules.port, [(each.address, each.weight) for each in chosen] or [(NOWHERE, 1)])


def _settle(state: State, now_s: float) -> tuple[State, Effects]:
    ports = wanted(state)
    if not state.connected or state.busy or ports is None or ports == state.serving:
        return state, ()
    replaces = state.serving is not None
    earliest_s = state.applied_s + state.rules.replace_s if replaces and state.rules.replace_s else 0.0
    if now_s < max(state.retry_at_s, earliest_s):
        return state, ()
    return replace(state, busy=True), (Apply(state.term, ports, replaces),)


def _step(state: State, event: Event, now_s: float) -> tuple[State, Effects]:
    match event:
        case Tick():
            return state, ()
        case Probed():
            return _probed(state, event, now_s)
        case Connected(tor_version):
            return _connected(state, tor_version)
        case Lost(why):
            return _lost(state, why)
        case Applied() | Failed() | Seen() if event.term != state.term:
            return state, ()
        case Applied():
            return _applied(state, event, now_s)
        case Failed(why=why):
            return _failed(state, why, now_s)
        case Seen():
            return _seen(state, event)
        case Published():
            return _published(state, event, now_s)
        case Elsewhere():
            return replace(state, elsewhere_s=now_s), (Note("error", "served_elsewhere", {"why": ELSEWHERE}),)
        case Compared():
            return replace(state, compared_s=now_s), ()
        case Drain(address, on):
            return _drain(state, address, on)
        case Retarget(targets):
            return _retarget(state, targets)
        case _:
            assert_never(event)


def _connected(state: State, tor_version: str) -> tuple[State, Effects]:
    after = replace(
        state,
        term=state.term + 1,
        connected=True,
        told=False,
        serving=None,
        busy=False,
        tor_version=tor_version,
        problem="",
        retry_at_s=0.0,
        retries=0,
    )
    return after, (Note("info", "tor_connected", {"tor_version": tor_version}),)


def _lost(state: State, why: str) -> tuple[State, Effects]:
    after = replace(
        state,
        connected=False,
        serving=None,
        busy=False,
        circuits=0,
        published_s=None,
        refused=False,
        problem=why,
    )
    return after, (Note("warning", "tor_lost", {"why": why}),) if why != state.problem else ()


def _applied(state: State, event: Applied, now_s: float) -> tuple[State, Effects]:
    after = replace(
        state,
        busy=False,
        told=True,
        serving=event.ports,
        address=event.address,
        applied_s=now_s,
        problem="",
        retry_at_s=0.0,
        retries=0,
    )
    note = Note("info", "serving", {"address": event.address, "ports": event.ports})
    return after, ((Announce(event.address),) if event.address != state.address else ()) + (note,)


def _failed(state: State, why: str, now_s: float) -> tuple[State, Effects]:
    pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2**state.retries)
    after = replace(
        state, busy=False, problem=why, retry_at_s=now_s + pause_s, retries=min(state.retries + 1, 10)
    )
    return after, (Note("error", "not_serving", {"why": why, "retry_s": pause_s}),)


def _seen(state: State, event: Seen) -> tuple[State, Effects]:
    after = replace(state, circuits=event.circuits)
    if state.busy or not state.told or event.ports == state.serving:
        return after, ()
    # Another hand set tor's options, or it read its torrc again.
    gone = replace(after, serving=event.ports, published_s=state.published_s if event.ports else None)
    lost = state.serving is not None
    return gone, (Note("warning", "service_changed_in_tor", {"ports": event.ports or ()}),) if lost else ()


def _published(state: State, event: Published, now_s: float) -> tuple[State, Effects]:
    if event.address != state.address:
        return state, ()
    if not event.ok:
        return replace(state, failed_uploads=state.failed_uploads + 1, refused=state.published_s is None), ()
    first = state.published_s is None
    after = replace(state, published_s=now_s, uploads=state.uploads + 1, refused=False)
    return after, (Note("info", "published", {"address": event.address}),) if first else ()


def _probed(state: State, event: Probed, now_s: float) -> tuple[State, Effects]:
    notes: list[Effect] = []
    targets = []
    for target in state.targets:
        known = _judged(target, event, state.rules, now_s) if target.address == event.address else target
        if known.up is not target.up:
            level, name = ("info", "target_up") if known.up else ("warning", "target_down")
            notes.append(Note(level, name, {"target": known.address, "why": event.detail}))
        targets.append(known)
    return replace(state, targets=tuple(targets)), tuple(notes)


def _judged(target: Watched, event: Probed, rules: Rules, now_s: float) -> Watched:
    if event.ok is target.up:
        return replace(target, streak=0, detail=event.detail)
    streak = target.streak + 1
    if target.up is None or streak >= (rules.rise if event.ok else rules.fall):
        return replace(target, up=event.ok, streak=0, since_s=now_s, detail=event.detail)
    return replace(target, streak=streak, detail=event.detail)


def _drain(state: State, address: str, on: bool) -> tuple[State, Effects]:
    targets = tuple(
        replace(target, drained=on) if target.address == address else target for target in state.targets
    )
    return replace(state, targets=targets), (
        Note("info", "drained" if on else "undrained", {"target": address}),
    )


def _retarget(state: State, targets: tuple[Target, ...]) -> tuple[State, Effects]:
    known = {target.address: target for target in state.targets}
    after = tuple(
        replace(known[target.address], weight=target.weight)
        if target.address in known
        else Watched(target.address, target.weight)
        for target in targets
    )
    names = tuple(target.address for target in targets)
    return replace(state, targets=after), (Note("info", "targets_changed", {"targets": names}),)
