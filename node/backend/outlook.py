"""How far our view of the chain can be trusted: what is refused while it can't, and why.

A stale height is a danger of its own. New channels could not be funded or watched, so they are refused as soon as the
chain can't be asked, is catching up, or stands still. HTLCs are compared with the height: an old one makes an expiry
look farther away than it is. They go on while the height can hardly be wrong by more than a channel's expiry delta
allows for, and are refused from then on; what is under way is settled or failed as ever. (LND refuses channels both
ways while it is not synced, and ends when its bitcoind is away; Core Lightning takes no commitment until it is synced.)
"""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from node.errors import Refused
from node.runtime import logs
from node.runtime.runtime import Runtime

BLOCK_INTERVAL_S = 600.0
# Blocks come at random, one in ten minutes: a gap of two hours has the probability e^-12, once in three years.
MAX_BLOCK_GAP_S = 7_200.0
MAX_BEHIND = (
    6  # blocks: bitcoind checks a new block in seconds, and is rarely more than two behind its headers
)
HASTE = 2  # how much faster than on average blocks may have come that we did not see
REMEDY = "look at bitcoind's log, its peers and its disk; all goes on by itself once it follows the chain"

AWAY, SYNCING, STALLED = "away", "syncing", "stalled"
CAUSES = (AWAY, SYNCING, STALLED)

log = logs.get("outlook")


class Sight(Struct, frozen=True):
    """What we know of our own view."""

    block_s: float  # monotonic, as all times here: when a block last came
    answer_s: float  # when the chain last answered
    failure: str | None = None  # why it can't be asked now
    behind: int = 0  # blocks that bitcoind has headers of and has not checked
    downloading: bool = False  # bitcoind says that it is far from the tip


class Trouble(Struct, frozen=True):
    cause: str
    text: str
    missed_blocks: int = 0  # how far the real tip may be above ours; 0: hardly

    @property
    def is_blind(self) -> bool:
        """Whether our height may be so wrong that no new HTLC is to depend on it."""
        return self.missed_blocks > 0


def judge(sight: Sight, now_s: float, max_gap_s: float | None) -> Trouble | None:
    """What is wrong with our view, if anything; `max_gap_s` None: blocks come on demand, and may take for ever."""
    gap_s = now_s - sight.block_s
    if sight.failure is not None:
        unseen_s = min(gap_s, now_s - sight.answer_s) if max_gap_s is None else gap_s
        limit_s = MAX_BLOCK_GAP_S if max_gap_s is None else max_gap_s
        missed = _missed(unseen_s) if unseen_s > limit_s else 0
        return Trouble(AWAY, f"the chain can't be followed: {sight.failure}", missed)
    if sight.downloading or sight.behind > MAX_BEHIND:
        missed = max(sight.behind, MAX_BEHIND)
        return Trouble(SYNCING, f"bitcoind is catching up: {sight.behind} blocks are missing", missed)
    if max_gap_s is not None and gap_s > max_gap_s:
        return Trouble(STALLED, f"no block came for {gap_s / 60:.0f} minutes", _missed(gap_s))
    return None


def _missed(unseen_s: float) -> int:
    return 1 + int(HASTE * unseen_s / BLOCK_INTERVAL_S)


class Outlook:
    """The newest judgement. Asked whenever something depends on it; says so in the log when it changes."""

    def __init__(
        self,
        runtime: Runtime,
        failure: Callable[[], str | None],
        max_gap_s: float | None,
        tip_age_s: float = 0.0,
    ) -> None:
        """`failure`: why the chain can't be asked now; `tip_age_s`: of the last block, at the start."""
        self._runtime = runtime
        self._failure = failure
        self._max_gap_s = max_gap_s
        now_s = runtime.monotonic()
        self._sight = Sight(block_s=now_s - max(0.0, tip_age_s), answer_s=now_s)
        self._said: str | None = None

    def block_came(self) -> None:
        now_s = self._runtime.monotonic()
        self._sight = replace(self._sight, block_s=now_s, answer_s=now_s)

    def answered(self, behind: int, *, downloading: bool) -> None:
        now_s = self._runtime.monotonic()
        self._sight = replace(self._sight, answer_s=now_s, behind=behind, downloading=downloading)

    @property
    def block_age_s(self) -> float:
        """Since a block last came."""
        return self._runtime.monotonic() - self._sight.block_s

    @property
    def trouble(self) -> Trouble | None:
        sight = replace(self._sight, failure=self._failure())
        return judge(sight, self._runtime.monotonic(), self._max_gap_s)

    @property
    def missed_blocks(self) -> int:
        trouble = self.trouble
        return 0 if trouble is None else trouble.missed_blocks

    def check_channels(self) -> None:
        """Raises Refused where no new channel is to be promised."""
        if (trouble := self.trouble) is not None:
            raise Refused(f"no new channels now: {trouble.text}")

    def check_htlcs(self) -> None:
        """Raises Refused where no new HTLC is to be offered."""
        trouble = self.trouble
        if trouble is not None and trouble.is_blind:
            raise Refused(f"no new payments now: {trouble.text}")

    def sweep(self) -> None:
        """Say what has changed."""
        trouble = self.trouble
        cause = None if trouble is None else trouble.cause
        if cause == self._said:
            return
        self._said = cause
        if trouble is None:
            log.info("chain_well")
        else:
            log.error("chain_trouble", cause=cause, text=trouble.text, remedy=REMEDY)
