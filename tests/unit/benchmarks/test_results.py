from statistics import median

import pytest
from benchmarks.results import Results, Sample, percentile
from hypothesis import given
from hypothesis import strategies as st


def cpu(contender: str, *figures: float) -> list[Sample]:
    return [Sample(contender, "requests", {"cpu_us": figure}) for figure in figures]


def test_median_is_taken_over_the_rounds_of_one_contender_and_work() -> None:
    other = Sample("ours", "uploads", {"cpu_us": 999.0})
    results = Results([*cpu("ours", 30, 10, 20), *cpu("nginx", 1), other])
    assert results.median("ours", "requests", "cpu_us") == 20


def test_what_was_not_measured_has_no_median_ratio_or_difference() -> None:
    results = Results(cpu("ours", 10))
    assert results.median("ours", "requests", "p50_ms") is None
    assert results.ratio("ours", "nginx", "requests", "cpu_us") is None
    assert results.added("ours", "nginx", "requests", "cpu_us") is None


def test_ratio_pairs_the_rounds_so_that_a_disturbance_of_both_cancels_out() -> None:
    results = Results([*cpu("ours", 30, 60, 15), *cpu("nginx", 20, 40, 10)])
    assert results.ratio("ours", "nginx", "requests", "cpu_us") == pytest.approx(1.5)


def test_ratio_leaves_out_rounds_where_the_reference_is_zero() -> None:
    results = Results([*cpu("ours", 30, 60), *cpu("nginx", 0, 40)])
    assert results.ratio("ours", "nginx", "requests", "cpu_us") == pytest.approx(1.5)


def test_added_is_the_median_difference_of_paired_rounds() -> None:
    results = Results([*cpu("ours", 5, 9, 4), *cpu("direct", 4, 6, 3)])
    assert results.added("ours", "direct", "requests", "cpu_us") == 1


def test_faults_are_summed_over_the_rounds() -> None:
    rounds = [
        Sample("ours", "requests", {}, {"status 502": 2}),
        Sample("ours", "requests", {}, {"status 502": 1, "broke off": 1}),
        Sample("nginx", "requests", {}, {"status 500": 7}),
    ]
    assert Results(rounds).faults("ours", "requests") == {"status 502": 3, "broke off": 1}


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_is_a_value_that_covers_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) * (1 - 1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentile_of_an_odd_number_of_values_at_half_is_their_median(values: list[float]) -> None:
    ordered = sorted(values[: len(values) - 1 + len(values) % 2])
    assert percentile(ordered or values, 0.5) == median(ordered or values)
