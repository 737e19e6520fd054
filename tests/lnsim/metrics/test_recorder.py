import json

import pytest

from lnsim.metrics.recorder import MAX_MARKS, MAX_POINTS, Mark, Recorder, Snapshot


class Clock:
    def __init__(self):
        self.at_s = 0.0

    def __call__(self):
        return self.at_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock)


def test_counters_histograms_and_series_become_one_flat_table(recorder, clock):
    recorder.count("payments.settled", 3)
    recorder.count("payments.settled")
    for value in (1.0, 2.0, 4.0):
        recorder.observe("reconnect", value)
    recorder.observe("sync.size", 10, unit="bytes")
    for clock.at_s, value in ((1.0, 5.0), (2.0, 9.0), (3.0, 7.0)):
        recorder.sample("backend.rss_mb", value)
    recorder.put("payments.success_ratio", 0.5)
    metrics = recorder.metrics()
    assert metrics["payments.settled"] == 4
    assert metrics["reconnect.p50_s"] == pytest.approx(2.0, rel=0.02)
    assert metrics["reconnect.max_s"] == 4.0
    assert metrics["reconnect.count"] == 3
    assert metrics["sync.size.mean_bytes"] == 10
    assert [metrics[f"backend.rss_mb.{key}"] for key in ("min", "mean", "max", "last")] == [5, 7, 9, 7]
    assert metrics["payments.success_ratio"] == 0.5
    assert list(metrics) == sorted(metrics)


def test_frontends_are_also_told_of_together(recorder):
    recorder.sample("f1.rss_mb", 40)
    recorder.sample("f12.rss_mb", 60)
    recorder.sample("f12.rss_mb", 50)
    recorder.sample("fees.rss_mb", 900)
    metrics = recorder.metrics()
    assert metrics["frontend.rss_mb.max"] == 60
    assert metrics["frontend.rss_mb.min"] == 40
    assert metrics["frontend.rss_mb.mean"] == 50
    assert metrics["frontend.rss_mb.last"] == 50


def test_another_process_is_merged_from_json(recorder, clock):
    other = Recorder(clock)
    for each, value in ((recorder, 1.0), (other, 3.0)):
        each.observe("handshake", value)
        each.count("rude.refused")
    plain = json.loads(json.dumps(other.snapshot().to_plain()))
    recorder.merge(Snapshot.from_plain(plain))
    metrics = recorder.metrics()
    assert (metrics["handshake.count"], metrics["handshake.max_s"], metrics["rude.refused"]) == (2, 3.0, 2)


def test_a_snapshot_stands_still(recorder):
    recorder.observe("ping", 1.0)
    snapshot = recorder.snapshot()
    recorder.observe("ping", 2.0)
    assert snapshot.histograms["ping"].histogram.count == 1


def test_a_long_series_is_thinned_but_keeps_its_peak_and_its_figures(recorder, clock):
    count, peak = 5 * MAX_POINTS, 3 * MAX_POINTS + 7
    for step in range(count):
        clock.at_s = float(step)
        recorder.sample("payments.settled_per_s", 0.0 if step == peak else 100.0 + step % 3)
    series = recorder.series()["payments.settled_per_s"]
    assert len(series.times) == len(series.values) <= MAX_POINTS
    assert series.times == sorted(series.times)
    assert (series.times[series.values.index(0.0)], series.times[-1]) == (peak, pytest.approx(count, abs=9))
    metrics = recorder.metrics()
    assert metrics["payments.settled_per_s.min"] == 0.0
    assert metrics["payments.settled_per_s.last"] == 100.0 + (count - 1) % 3


def test_marks_carry_their_time_and_are_bounded(recorder, clock):
    clock.at_s = 20.0
    recorder.mark("fault", "kill f1", until_s=22.5)
    assert recorder.marks == [Mark("fault", "kill f1", 20.0, 22.5)]
    for _ in range(MAX_MARKS):
        recorder.mark("info", "block")
    assert len(recorder.marks) == MAX_MARKS


def test_one_name_has_one_unit(recorder):
    recorder.observe("sync", 1.0)
    with pytest.raises(AssertionError, match="measured in 's'"):
        recorder.observe("sync", 1.0, unit="ms")
