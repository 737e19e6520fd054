"""When our view of the chain is not good enough for what depends on it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.backend.outlook import (
    AWAY,
    BLOCK_INTERVAL_S,
    CAUSES,
    MAX_BEHIND,
    MAX_BLOCK_GAP_S,
    STALLED,
    SYNCING,
    Outlook,
    Sight,
    judge,
)
from node.errors import Refused

YEAR_S = 365 * 86_400


def seen(**facts) -> Sight:
    return Sight(**{"block_s": 0.0, "answer_s": 0.0, **facts})


def test_a_false_alarm_comes_once_in_years():
    chance = math.exp(-MAX_BLOCK_GAP_S / BLOCK_INTERVAL_S)
    assert YEAR_S / BLOCK_INTERVAL_S * chance < 0.5


@pytest.mark.parametrize(
    ("sight", "now_s", "cause", "is_blind"),
    [
        (seen(), 7_199.0, None, False),
        (seen(), 7_201.0, STALLED, True),
        (seen(failure="gone"), 1.0, AWAY, False),
        (seen(failure="gone"), 7_199.0, AWAY, False),
        (seen(failure="gone"), 7_201.0, AWAY, True),
        (seen(behind=MAX_BEHIND), 1.0, None, False),
        (seen(behind=MAX_BEHIND + 1), 1.0, SYNCING, True),
        (seen(downloading=True), 1.0, SYNCING, True),
    ],
)
def test_what_is_said_of_it(sight, now_s, cause, is_blind):
    trouble = judge(sight, now_s, MAX_BLOCK_GAP_S)
    assert (trouble and trouble.cause) == cause
    assert bool(trouble and trouble.is_blind) == is_blind


def test_where_blocks_come_on_demand_only_silence_of_the_server_counts():
    assert judge(seen(), 1e9, None) is None
    away = judge(seen(answer_s=1e9 - 10, failure="gone"), 1e9, None)
    assert away is not None
    assert not away.is_blind
    assert judge(seen(failure="gone"), MAX_BLOCK_GAP_S + 1, None).is_blind


SIGHTS = st.builds(
    Sight,
    block_s=st.floats(0, 1e6),
    answer_s=st.floats(0, 1e6),
    failure=st.none() | st.just("gone"),
    behind=st.integers(0, 100_000),
    downloading=st.booleans(),
)


@given(SIGHTS, st.floats(0, 1e6), st.none() | st.floats(1, 1e5))
def test_it_does_not_mend_by_waiting(sight, later_s, max_gap_s):
    now_s = max(sight.block_s, sight.answer_s)
    before, after = judge(sight, now_s, max_gap_s), judge(sight, now_s + later_s, max_gap_s)
    if before is not None:
        assert after is not None
        assert before.cause in (after.cause, STALLED)
        assert after.missed_blocks >= before.missed_blocks
    for trouble in (before, after):
        assert trouble is None or (trouble.cause in CAUSES and trouble.text)


class Clock:
    time_s = 0.0

    def monotonic(self) -> float:
        return self.time_s


class Alarm:
    failure = None

    def __init__(self, tip_age_s=0.0):
        self.clock = Clock()
        self.outlook = Outlook(self.clock, lambda: self.failure, MAX_BLOCK_GAP_S, tip_age_s)


def test_channels_are_refused_at_once_and_payments_once_the_height_may_be_wrong():
    alarm = Alarm()
    alarm.failure = "nothing answers"
    with pytest.raises(Refused, match="no new channels now: the chain can't be followed: nothing answers"):
        alarm.outlook.check_channels()
    alarm.outlook.check_htlcs()
    alarm.clock.time_s = MAX_BLOCK_GAP_S + 1
    with pytest.raises(Refused, match="no new payments now"):
        alarm.outlook.check_htlcs()
    assert alarm.outlook.missed_blocks == 25
    alarm.failure = None
    alarm.outlook.block_came()
    alarm.outlook.check_channels()
    alarm.outlook.check_htlcs()


def test_a_start_does_not_make_an_old_tip_new():
    assert Alarm(tip_age_s=7_300).outlook.trouble.cause == STALLED
    assert Alarm(tip_age_s=-7_300).outlook.trouble is None, "miners' clocks may be ahead"


def test_the_log_says_what_has_changed_and_only_then(capsys):
    alarm = Alarm()
    alarm.outlook.sweep()
    assert capsys.readouterr().out == ""
    alarm.clock.time_s = MAX_BLOCK_GAP_S + 61
    for _ in range(3):
        alarm.outlook.sweep()
        alarm.clock.time_s += 60
    said = capsys.readouterr().out
    assert said.count("chain_trouble") == 1
    assert "no block came for 121 minutes" in said
    alarm.outlook.block_came()
    alarm.outlook.sweep()
    assert "chain_well" in capsys.readouterr().out
