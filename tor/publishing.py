"""Keeps the backend told of the address: what to say, when to say it again, what became of it. No IO, no clock."""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tor.keeper import Note

SAY_AGAIN_S = 60.0  # what the backend has not heard of for ten minutes it announces no more
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
MAX_RETRIES = 6  # counted; by then the pause is the longest
STAYS = (
    "still announced, by the backend's announce_addresses or tor.address_file; "
    "take it out there, and restart the backend"
)


class State(Struct, frozen=True):
    """`announced`: what the backend said last, None before it said anything of this address."""

    announce: bool
    address: str = ""
    announced: bool | None = None
    api: str = ""  # which one said so
    told_s: float = 0.0
    busy: bool = False
    due_s: float = 0.0
    retries: int = 0
    problem: str = ""


class Known(Struct, frozen=True):
    """ADDRESS.onion:PORT is ours."""

    address: str


class Told(Struct, frozen=True):
    """A backend took what it was told of this address."""

    address: str
    api: str
    announced: bool


class Failed(Struct, frozen=True):
    address: str
    why: str


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = Known | Told | Failed | Tick


class Tell(Struct, frozen=True):
    """Have the backend announce the address, or no longer; answered by Told or Failed. `api`: who took it before."""

    address: str
    announce: bool
    api: str


Effects = tuple[Tell | Note, ...]


def is_announced(state: State) -> bool:
    """Whether all is as far as it can be: the backend said so when it was asked last."""
    return state.announced is True and not state.problem


def step(state: State, event: Event, now_s: float) -> tuple[State, Effects]:
    """Advance by one event."""
    after, notes = _step(state, event, now_s)
    if not after.address or after.busy or now_s < after.due_s:
        return after, notes
    return replace(after, busy=True), (*notes, Tell(after.address, after.announce, after.api))


def _step(state: State, event: Event, now_s: float) -> tuple[State, tuple[Note, ...]]:
    match event:
        case Tick():
            return state, ()
        case Known(address):
            if address == state.address:
                return state, ()
            return State(state.announce, address, api=state.api, busy=state.busy), ()
        case Told() | Failed() if event.address != state.address:
            return replace(state, busy=False), ()  # of an address that we no longer have
        case Told():
            return _told(state, event, now_s)
        case Failed(why=why):
            return _failed(state, why, now_s)
        case _:
            assert_never(event)


def _told(state: State, event: Told, now_s: float) -> tuple[State, tuple[Note, ...]]:
    problem = STAYS if event.announced and not state.announce else ""
    after = replace(
        state,
        announced=event.announced,
        api=event.api,
        told_s=now_s,
        busy=False,
        due_s=now_s + SAY_AGAIN_S,
        retries=0,
        problem=problem,
    )
    if (after.announced, after.api, after.problem) == (state.announced, state.api, state.problem):
        return after, ()
    facts: dict[str, str | int | float | tuple[str, ...]] = {"address": event.address, "backend": event.api}
    if problem:
        return after, (Note("warning", "announced", {**facts, "why": problem}),)
    return after, (Note("info", "announced" if event.announced else "not_announced", facts),)


def _failed(state: State, why: str, now_s: float) -> tuple[State, tuple[Note, ...]]:
    pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2**state.retries)
    after = replace(
        state,
        busy=False,
        due_s=now_s + pause_s,
        retries=min(state.retries + 1, MAX_RETRIES),
        problem=why,
    )
    return after, (Note("warning", "backend_not_told", {"why": why}),) if why != state.problem else ()
