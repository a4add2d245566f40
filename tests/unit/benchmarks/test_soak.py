from xml.etree import ElementTree as ET

import pytest
from benchmarks.plot import Line, Panel, chart
from benchmarks.soak import Plan, Sample, Tally, growth


@pytest.mark.parametrize("fault", ["status 502", "broke off", "connection closed by the proxy"])
def test_a_visible_fault_is_excused_where_something_was_killed_and_nowhere_else(fault: str) -> None:
    tally = Tally()

    tally.note("stream", fault, excused=True)
    tally.note("stream", fault, excused=False)

    assert tally.visible == {"stream": 1}
    assert tally.faults == {f"stream: {fault}": 1}


@pytest.mark.parametrize(
    "fault", ["the checksum differs", "7 bytes instead of 9", "no answer in time", "status 404"]
)
def test_an_answer_that_looks_whole_and_is_not_is_never_excused(fault: str) -> None:
    tally = Tally()

    tally.note("stream", fault, excused=True)

    assert tally.faults == {f"stream: {fault}": 1}


def test_growth_counts_from_when_the_proxy_is_warm_to_its_death() -> None:
    plan = Plan(seconds=100.0, idle=0)
    samples = [
        Sample(at, 1, rss, 30, 19, 1000 * at, 1.0, 2.0)
        for at, rss in ((10, 50.0), (25, 80.0), (50, 81.0), (78, 82.0), (90, 20.0))
    ]

    assert growth(plan, samples) == (80.0, 82.0, 53_000)


def test_a_plot_is_well_formed_and_has_a_line_for_each_series() -> None:
    lines = Line("a < b", [(0.0, 1.0), (60.0, 3.0)]), Line("c", [])

    root = ET.fromstring(chart([Panel("MiB & more", lines)], 60.0, [(30.0, "a kill")]))  # noqa: S314 - our own

    strokes = [path.get("stroke-width") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert strokes.count("1.5") == 2
    assert "MiB & more" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
