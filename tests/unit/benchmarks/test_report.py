import pytest
from benchmarks.machine import Machine
from benchmarks.report import BEGIN, END, figures, insert, limits, markdown_table, ratios, remarks, report
from benchmarks.results import Results, Sample

MACHINE = Machine("2030-01-02 03:04 UTC", "Some CPU", "2 cores", "Some Linux", "Python 3.12", "fast")


def line(table: str, label: str) -> list[str]:
    found = next(row for row in table.splitlines() if row.startswith(f"| {label}"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def requests(contender: str, cpu_us: float, **faults: int) -> Sample:
    return Sample(contender, "requests", {"cpu_us": cpu_us, "per_second": 20_000.0}, faults)


def test_columns_of_a_table_are_aligned() -> None:
    table = markdown_table(
        ["", "nginx", "ai-proxy"], [["CPU", "1.0", "12,345.0"], ["a longer label", "-", "2"]]
    )
    assert len({len(row) for row in table.splitlines()}) == 1


def test_figures_show_each_contender_and_a_dash_for_what_is_missing() -> None:
    table = figures(Results([requests("ai-proxy", 24.04), requests("nginx", 17)]), ["ai-proxy", "nginx"])
    assert line(table, "CPU per request, us") == ["24.0", "17.0", "-"]
    assert line(table, "requests/s") == ["20,000", "20,000", "-"]


def test_latency_is_what_is_added_to_the_engine_and_the_engine_itself_in_full() -> None:
    samples = [
        Sample(name, "latency 32", {"p50_ms": p50}) for name, p50 in (("nginx", 0.75), ("direct", 0.5))
    ]
    table = figures(Results(samples), ["nginx"])
    assert line(table, "added latency p50, 32") == ["0.250", "0.500"]


def test_a_contender_with_faults_is_marked_and_its_faults_are_named() -> None:
    results = Results(
        [Sample("nginx", "requests", {"cpu_us": 17.0}, {"status 502": 2}), requests("direct", 0)]
    )
    assert line(figures(results, ["nginx"]), "CPU per request, us") == ["17.0 !", "0.0"]
    assert "! nginx, requests: 2 x status 502" in remarks(results, ["nginx"])


def test_a_run_without_faults_says_so() -> None:
    assert "no answer was lost" in remarks(Results([requests("nginx", 17)]), ["nginx"])


@pytest.mark.parametrize(
    ("pace", "lag", "mark"),
    [(1.0, 0.1, ""), (0.5, 0.1, "*"), (0.5, 50.0, "?")],
    ids=["kept pace", "proxy behind", "engine late"],
)
def test_a_lost_pace_is_laid_at_the_right_door(pace: float, lag: float, mark: str) -> None:
    values = {"cpu_us": 11.0, "pace_share": pace, "engine_lag_ms": lag}
    results = Results([Sample("nginx", "uncoalesced", values)])
    cell = line(figures(results, ["nginx"]), "CPU per chunk, 500")[0]
    assert cell == f"11.0 {mark}".strip()
    assert (f"- {mark} the" in remarks(results, ["nginx"])) is bool(mark)


def test_ratios_are_to_nginx() -> None:
    table = ratios(Results([requests("ai-proxy", 24), requests("nginx", 16)]), ["ai-proxy", "nginx"])
    assert line(table, "CPU per request") == ["1.50", "1.00"]


@pytest.mark.parametrize(("cpu_us", "verdict"), [(24.0, "held"), (24.2, "MISSED")])
def test_limits_are_held_up_to_and_including_the_bound(cpu_us: float, verdict: str) -> None:
    table = limits(Results([requests("ai-proxy", cpu_us), requests("nginx", 16)]))
    assert line(table, "CPU per request")[2] == verdict


def test_report_tells_machine_versions_and_who_was_absent() -> None:
    results = Results([requests("nginx", 17)])
    text = report(MACHINE, {"nginx": "nginx/1.2"}, 5, results, ["haproxy did not take part: not installed"])
    for fact in (
        "2030-01-02",
        "Some CPU, 2 cores",
        "nginx/1.2",
        "medians of 5 rounds",
        "haproxy did not take part",
    ):
        assert fact in text
    assert "must hold" not in text


def test_insert_replaces_only_what_stands_between_the_markers() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert insert(page, "new\n") == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"


def test_insert_refuses_a_page_without_markers() -> None:
    with pytest.raises(ValueError, match="figures: begin"):
        insert("no markers here", "new")
