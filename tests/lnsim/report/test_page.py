import json
import re
import sys

import pytest
from example_run import DURATION_S, example_run
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lnsim.metrics.histogram import Histogram
from lnsim.metrics.recorder import Mark, Series
from lnsim.report import html, verdict
from lnsim.report.panels import bars, broken, distributions, line, over_time, role
from lnsim.report.result import Check

HOSTILE = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"""


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def without_plotly(page):
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)


def terminal(renderable, width=100):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_page_holds_everything_and_asks_for_nothing():
    page = html.render(example_run())
    own = without_plotly(page)
    assert len(page) > 4_000_000
    assert len(own) < 200_000
    assert "default-src 'none'" in own
    assert not re.search(r"(src|href)=[\"'](?!data:)|url\(|@import|https?://", own)
    assert "A frontend dies under two hundred payments" in own
    assert "lnsim run scenarios/frontend_churn.yaml --seed 4711" in own
    assert "It holds." in own


def test_what_the_scenario_says_stays_text():
    run = example_run(
        name=HOSTILE,
        claim=HOSTILE,
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        marks=[Mark("fault", HOSTILE, 3.0)],
        complaints=[HOSTILE],
        expectations=[Check(HOSTILE, False, HOSTILE)],
        metrics={HOSTILE: 1.0},
        series={f"swarm.{HOSTILE}.connected": Series([1.0, 2.0], [1.0, 2.0])},
        histograms={},
    )
    page = without_plotly(html.render(run))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("</script>") == 3 - 1  # data and the page's own; plotly's was taken out
    assert data_of(page)["marks"][0]["text"] == HOSTILE


def test_faults_are_on_the_axis_of_every_plot():
    data = data_of(html.render(example_run()))
    assert data["marks"][0] == {"kind": "fault", "text": "kill f1", "at_s": 20.0, "until_s": None}
    assert data["duration_s"] == DURATION_S
    assert [panel["title"] for panel in data["panels"]][:3] == [
        "Payments a second",
        "Payment latency, each second",
        "Payments in flight",
    ]


def test_panels_without_data_are_left_out():
    run = example_run(
        series={"f1.sessions": Series([1.0], [4.0]), "f2.sessions": Series([], [])}, histograms={}
    )
    (panel,) = over_time(run)
    assert [trace.name for trace in panel.traces] == ["f1"]
    assert distributions(run) == []
    bare = without_plotly(
        html.render(example_run(series={}, histograms={}, marks=[], metrics={}, invariants=[]))
    )
    assert "Over time" not in bare
    assert "How long" not in bare


def test_one_process_has_one_colour_everywhere():
    colours = {}
    for panel in over_time(example_run()):
        for trace in panel.traces:
            assert colours.setdefault(trace.name, trace.colour) == trace.colour
    assert role("f1") != role("f2") != role("backend")


def test_a_line_breaks_where_nothing_was_measured():
    series = Series([1.0, 2.0, 3.0, 9.0, 10.0], [5.0, 5.0, 5.0, 6.0, 6.0])
    assert broken(series) == [5.0, 5.0, 5.0, None, 6.0, 6.0]
    assert line("f1", "blue", series).x == [1.0, 2.0, 3.0, 3.0, 9.0, 10.0]


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=50).filter(any))
def test_the_bars_of_a_distribution_are_all_of_it(values):
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    if histogram.maximum < 1e-9:
        return
    x, y = bars(histogram)
    assert len(x) == len(y) < 60
    assert x == sorted(x)
    assert sum(y) == pytest.approx(100, abs=0.1)


def test_without_plotly_there_are_tables_and_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    page = html.render(example_run())
    assert len(page) < 200_000
    assert 'pip install "lnsim[sim]"' in page
    assert "Payments a second" in page


def test_a_verdict_that_holds_is_short():
    text = terminal(verdict.render(example_run()))
    assert "frontend_churn holds" in text
    assert "5 invariants hold: nothing was lost" in text
    assert re.search(r"reconnect.p99_s < 5\s+\d\.\d+ s", text)
    assert text.count("\n") < 16


def test_a_verdict_that_falls_short_says_what_was_found_and_how_to_see_it_again():
    run = example_run(
        expectations=[Check("reconnect.p99_s < 5", False, 7.25), Check("sync.p99_s < 2", False)],
        invariants=[Check("every msat accounted for", False), Check("graphs agree", True)],
        complaints=["p[3]: 1,200 msat are missing [bold]"],
    )
    text = terminal(verdict.render(run))
    assert "falls short" in text
    assert re.search(r"✗  reconnect.p99_s < 5\s+7.25 s", text)
    assert re.search(r"✗  sync.p99_s < 2\s+not measured", text)
    assert "1 of 2 invariants are broken" in text
    assert "p[3]: 1,200 msat are missing [bold]" in text
    assert "lnsim run scenarios/frontend_churn.yaml --seed 4711" in text
