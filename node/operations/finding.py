"""What `lnnode doctor` finds: how bad it is, and how to mend it."""

from enum import IntEnum

from msgspec import Struct


class Level(IntEnum):
    GOOD = 0
    WARNING = 1
    BAD = 2


class Finding(Struct, frozen=True):
    level: Level
    text: str
    mend: str = ""


def good(text: str) -> Finding:
    return Finding(Level.GOOD, text)


def warn(text: str, mend: str) -> Finding:
    return Finding(Level.WARNING, text, mend)


def bad(text: str, mend: str) -> Finding:
    return Finding(Level.BAD, text, mend)
