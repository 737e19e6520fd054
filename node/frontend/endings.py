"""Why connections end, counted under a bounded number of names: a peer words some causes, and labels are for ever."""

from collections import Counter

OTHER = "other"

# Every cause that we name ourselves; a colon is followed by details.
CAUSES = frozenset(
    (
        "a channel has to be reestablished",
        "asked for",
        "backend lost",
        "bad_key",
        "bad_length",
        "bad_mac",
        "bad_version",
        "busy",
        "connection lost",
        "drained",
        "features",
        "frontend stops",
        "handshake timeout",
        "init_expected",
        "internal error",
        "link lost",
        "malformed",
        "networks",
        "no room",
        "no_init",
        "no_backend",
        "no_pong",
        "not held",
        "not the newest session",
        "out of step",
        "out of turn",
        "overflow",
        "ping_flood",
        "query flood",
        "replaced",
        "second_init",
        "slow reader",
        "timeout",
        "too many peers without channels",
        "too_much",
        "undecodable",
        "unknown_even",
    )
)


class Endings:
    """Mutable; handshakes that came to nothing, and sessions that are over, by cause."""

    def __init__(self) -> None:
        self.handshakes: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()

    def count(self, cause: str, *, established: bool) -> None:
        (self.sessions if established else self.handshakes)[label(cause)] += 1


def label(cause: str) -> str:
    """The cause as a metric's label."""
    head = cause.partition(":")[0]
    return head.replace(" ", "_") if head in CAUSES else OTHER
