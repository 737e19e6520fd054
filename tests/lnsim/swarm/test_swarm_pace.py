"""Rates and pauses as functions of time and chance."""

import random

from hypothesis import given
from hypothesis import strategies as st

from lnsim.swarm.dialler import back_off_s
from lnsim.swarm.pace import due_by

rates = st.floats(0.1, 10_000)
times = st.floats(0, 1_000)


@given(rates, times, times, times)
def test_what_is_due_never_goes_back_and_never_exceeds_the_rate(per_s, ramp_s, one_s, other_s):
    early_s, late_s = sorted((one_s, other_s))
    due = due_by(late_s, per_s, ramp_s) - due_by(early_s, per_s, ramp_s)
    assert -1e-6 <= due <= per_s * (late_s - early_s) * (1 + 1e-9) + 1e-6


@given(rates, st.floats(1e-3, 100), st.floats(0, 100))
def test_a_ramp_costs_half_of_what_it_lasts(per_s, ramp_s, after_s):
    assert abs(due_by(ramp_s + after_s, per_s, ramp_s) - per_s * (ramp_s / 2 + after_s)) < 1e-3


@given(st.integers(0, 10_000), st.integers())
def test_a_pause_starts_short_doubles_and_ends_at_two_seconds(failures, seed):
    full_s = min(2.0, 0.05 * 2 ** min(failures, 20))
    assert full_s / 2 <= back_off_s(failures, random.Random(seed)) <= full_s * 1.5
