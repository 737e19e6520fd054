import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.metrics.histogram import SMALLEST, Histogram

VALUES = st.lists(st.floats(min_value=0, max_value=1e12), max_size=60)


def observed(values):
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


@settings(max_examples=80)
@given(VALUES, VALUES)
def test_merging_equals_observing_all_in_one(one, two):
    merged = observed(one)
    merged.merge(observed(two))
    whole = observed(one + two)
    assert merged.buckets == whole.buckets
    assert (merged.count, merged.minimum, merged.maximum) == (whole.count, whole.minimum, whole.maximum)
    assert merged.total == pytest.approx(whole.total)


@settings(max_examples=120)
@given(st.lists(st.floats(min_value=SMALLEST, max_value=1e12), min_size=1, max_size=60), st.floats(0, 1))
def test_a_percentile_is_within_two_percent(values, share):
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert observed(values).percentile(share) == pytest.approx(exact, rel=0.02)


@settings(max_examples=60)
@given(VALUES)
def test_it_travels_as_json(values):
    histogram = observed(values)
    plain = json.loads(json.dumps(msgspec.to_builtins(histogram, str_keys=True)))
    assert msgspec.convert(plain, Histogram, str_keys=True) == histogram
    assert msgspec.json.decode(msgspec.json.encode(histogram), type=Histogram) == histogram


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_what_came_since_is_told_apart(before, after):
    histogram = observed(before)
    earlier = histogram.copy()
    for value in after:
        histogram.observe(value)
    since, expected = histogram.since(earlier), observed(after)
    assert (since.buckets, since.count) == (expected.buckets, expected.count)
    assert since.percentile(0.5) == pytest.approx(expected.percentile(0.5), rel=0.04, abs=SMALLEST)
    assert earlier == observed(before)


def test_nothing_observed_is_nothing():
    assert (Histogram().percentile(0.99), Histogram().mean, Histogram().bars()) == (0.0, 0.0, [])


def test_a_clock_a_hair_behind_counts_as_nothing():
    histogram = observed([-1e-7, 0.0, 2.0])
    assert (histogram.minimum, histogram.percentile(0.5), histogram.maximum) == (0.0, 0.0, 2.0)


def test_what_is_no_number_is_our_own_bug():
    with pytest.raises(AssertionError, match="nan is no measurement"):
        Histogram().observe(math.nan)


def test_bars_hold_their_values():
    low, high, count = observed([0.1] * 3).bars()[0]
    assert low <= 0.1 < high
    assert count == 3
