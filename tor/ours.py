"""Which descriptors in the network's directories are our tor's, so that another tor's can be told. No IO, no clock.

A tor makes a signing key with each descriptor that it creates, one for each period, and keeps it as long as it serves;
it says when it creates one. It numbers what it publishes by the time, in a way that depends on the service's key
alone, and a directory keeps the highest number. So whatever a directory has after it took our tor's descriptor is that
one or a later one, never one from before our tor's start; and all of ours have one signing key. What was seen first at
such a directory is remembered. Another signing key with a higher number shows that two tors publish, also where it was
the other tor's that was seen first: then ours is what shows it, once our tor has published anew.

tor shows one of its two periods' descriptors, and clients ask for that one half of the time; it is compared with first
of all. In the other half nothing is known of what was published before somebody listened to tor: until it publishes
anew, within two hours, the verdict is UNKNOWN.
"""

from enum import Enum, auto
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tor.descriptor import Answer, Descriptor, fingerprint, key_of

MAX_PERIODS = 4  # a tor publishes for two; of an older one nobody asks
MAX_TAKERS = 16  # a period has 8 directories unless the network is told otherwise; one is enough
MAX_ROUNDS = 64  # directories that were sent something and have not answered yet


class Created(Struct, frozen=True):
    """Our tor made a descriptor, with a new signing key."""

    blinded_key: bytes


class Sent(Struct, frozen=True):
    directory: str
    blinded_key: bytes


class Taken(Struct, frozen=True):
    """A directory has taken one of the descriptors that it was sent; which one, tor does not tell."""

    directory: str


class NotTaken(Struct, frozen=True):
    directory: str


Event = Created | Sent | Taken | NotTaken


class Period(Struct, frozen=True):
    """A blinded key; `takers` have a descriptor that our tor published or a later one; `first` was seen there."""

    blinded_key: bytes
    takers: tuple[str, ...] = ()
    first: Descriptor | None = None


class Round(Struct, frozen=True):
    """What a directory was sent since it last had taken everything."""

    directory: str
    keys: tuple[bytes, ...]
    taken: int = 0


class Ours(Struct, frozen=True):
    """`life` counts what makes everything from before void; `asked_for` is the period that clients asked for last."""

    life: int = 0
    periods: tuple[Period, ...] = ()
    rounds: tuple[Round, ...] = ()
    asked_for: bytes | None = None


class Verdict(Enum):
    UNKNOWN = auto()  # nothing is known yet that it could be compared with
    OURS = auto()
    ANOTHERS = auto()


def heard(text: str) -> Event | None:
    """What tor's event HS_DESC says of our tor's publishing."""
    words = text.split()
    match words[1] if len(words) > 1 else "", len(words):
        case ("CREATED", count) if count > 5 and (key := key_of(words[5])):
            return Created(key)
        case ("UPLOAD", count) if count > 5 and (key := key_of(words[5])):
            return Sent(fingerprint(words[4]), key)
        case ("UPLOADED", count) if count > 4:
            return Taken(fingerprint(words[4]))
        case ("FAILED", count) if count > 4:
            return NotTaken(fingerprint(words[4]))
        case _:
            return None


def hear(ours: Ours, event: Event) -> Ours:
    match event:
        case Created(key):
            left = tuple(each for each in ours.periods if each.blinded_key != key)
            rounds = tuple(each for each in ours.rounds if key not in each.keys)
            return replace(ours, life=ours.life + 1, periods=left, rounds=rounds)
        case Sent(directory, key):
            return _sent(ours, directory, key)
        case Taken(directory):
            return _taken(ours, directory)
        case NotTaken(directory):
            return replace(ours, rounds=_others(ours, directory))
        case _:
            assert_never(event)


def forgotten(ours: Ours) -> Ours:
    """Our tor may have been restarted: whatever it is sent to say next is of a new life."""
    return Ours(life=ours.life + 1)


def to_learn(ours: Ours) -> Period | None:
    """A period of which nothing was seen yet, and could be."""
    for each in ours.periods:
        if each.first is None and each.takers and ours.asked_for in (None, each.blinded_key):
            return each
    return None


def where(ours: Ours) -> str:
    """The directory that is to be asked next; empty for any that a client would ask."""
    period = to_learn(ours)
    return period.takers[-1] if period else ""


def without(ours: Ours, directory: str) -> Ours:
    """That directory had nothing, or does not answer: it is no taker of what clients ask for at present."""
    periods = tuple(
        replace(each, takers=tuple(taker for taker in each.takers if taker != directory))
        if ours.asked_for in (None, each.blinded_key)
        else each
        for each in ours.periods
    )
    return replace(ours, periods=periods)


def judged(ours: Ours, asked: Ours, answer: Answer, own: Descriptor | None) -> tuple[Ours, Verdict]:
    """What an answer tells. `asked`: what was known when the question was put; `own`: what our tor shows, if anything."""
    if asked.life != ours.life:
        return ours, Verdict.UNKNOWN
    after, found = replace(ours, asked_for=answer.blinded_key), answer.found
    if found is None:
        return without(after, answer.directory), Verdict.UNKNOWN
    first = _first(asked, answer.directory, found, own)
    if first is None:
        return after, Verdict.UNKNOWN
    periods = tuple(
        replace(each, first=first) if each.blinded_key == first.blinded_key else each
        for each in after.periods
    )
    verdict = Verdict.ANOTHERS if is_anothers(found, first) else Verdict.OURS
    return replace(after, periods=periods), verdict


def is_anothers(found: Descriptor, own: Descriptor) -> bool:
    """Whether another tor published `found` after our tor published `own`. Of another period's, nothing is known."""
    return (
        found.blinded_key == own.blinded_key
        and found.signing_key != own.signing_key
        and found.revision > own.revision
    )


def _first(asked: Ours, directory: str, found: Descriptor, own: Descriptor | None) -> Descriptor | None:
    """What `found` is to be compared with: what our tor shows, or was seen first; itself, where our tor's has been."""
    if own is not None and own.blinded_key == found.blinded_key:
        return own
    period = _period(asked, found.blinded_key)
    if period.first is None and directory in period.takers:
        return found
    return period.first


def _sent(ours: Ours, directory: str, key: bytes) -> Ours:
    before = next((each for each in ours.rounds if each.directory == directory), Round(directory, ()))
    if key in before.keys:  # sent anew: what it did not answer by now it never will
        before = Round(directory, ())
    rounds = (*_others(ours, directory), replace(before, keys=(*before.keys, key)))
    return replace(ours, rounds=rounds[-MAX_ROUNDS:])


def _taken(ours: Ours, directory: str) -> Ours:
    """Only when it has taken all that it was sent is it known that it has taken each."""
    before = next((each for each in ours.rounds if each.directory == directory), None)
    if before is None:
        return ours
    now = replace(before, taken=before.taken + 1)
    if now.taken < len(now.keys):
        return replace(ours, rounds=(*_others(ours, directory), now))
    after = replace(ours, rounds=_others(ours, directory))
    for key in now.keys:
        after = _with_taker(after, key, directory)
    return after


def _with_taker(ours: Ours, key: bytes, directory: str) -> Ours:
    period = _period(ours, key)
    takers = (*(each for each in period.takers if each != directory), directory)[-MAX_TAKERS:]
    now = replace(period, takers=takers)
    if period in ours.periods:
        return replace(ours, periods=tuple(now if each is period else each for each in ours.periods))
    return replace(ours, periods=(*ours.periods, now)[-MAX_PERIODS:])


def _period(ours: Ours, key: bytes) -> Period:
    return next((each for each in ours.periods if each.blinded_key == key), Period(key))


def _others(ours: Ours, directory: str) -> tuple[Round, ...]:
    return tuple(each for each in ours.rounds if each.directory != directory)
