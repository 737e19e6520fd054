"""What a demo can be told, and how the command line's words are read."""

import re

from msgspec import Struct

NAMES = (
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "niaj",
)
MAX_FRONTENDS = 8
TOR = "tor"  # what can be killed beside the node's processes
UNIT_S = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3_600}


class BadArgument(ValueError):  # noqa: N818 - a fact about the user's words, which say what would do
    """A user's value that makes no sense."""


class Fault(Struct, frozen=True):
    """What is killed, and how long after the first payment."""

    what: str
    at_s: float

    def __str__(self) -> str:
        return f"--kill {self.what}@{self.at_s:g}s"


class Options(Struct, frozen=True, kw_only=True):
    for_s: float | None = None  # None: until told to stop
    seed: int = 0
    peers: int = 5
    frontends: int = 2
    rate_per_s: float = 30.0
    faults: tuple[Fault, ...] = ()
    tor: bool = False


def duration(text: str) -> float:
    """Seconds in "20s", "1.5m", "2h" or "20". Raises BadArgument."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if not match or float(match[1]) == 0:
        raise BadArgument(f'"{text}" is no duration: say 20s, 5m or 1h')
    return float(match[1]) * UNIT_S[match[2]]


def fault(text: str) -> Fault:
    """What "frontend@8s" says. Raises BadArgument."""
    what, at, when = text.partition("@")
    if not at or not (what in ("frontend", "backend", TOR) or re.fullmatch(r"f[1-9]", what)):
        raise BadArgument(f'"{text}" is no kill: say frontend@8s, f1@8s, backend@8s or tor@8s')
    return Fault(what, duration(when))


def check_faults(options: Options) -> None:
    """Raises BadArgument for the first that these options leave no room for."""
    for each in options.faults:
        if each.what == TOR and not options.tor:
            raise BadArgument(f"{each}: there is a tor with --tor only")
        if each.what[1:].isdigit() and int(each.what[1:]) > options.frontends:
            raise BadArgument(f"{each}: there {_frontends(options.frontends)}")
        if options.for_s is not None and each.at_s >= options.for_s:
            raise BadArgument(f"{each} comes after the end (--for {options.for_s:g}s)")


def _frontends(count: int) -> str:
    if count == 1:
        return "is only f1"
    return f"are only f1 {'and' if count == 2 else 'to'} f{count}"
