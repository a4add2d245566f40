from benchmarks.cold_start import Pair, section


def test_the_overhead_is_held_against_its_limit() -> None:
    quick = section([Pair(0.75, 0.7), Pair(0.9, 0.7), Pair(0.76, 0.7)])
    slow = section([Pair(1.2, 0.7)])

    assert "held" in quick
    assert "60" in quick
    assert "MISSED" in slow


def test_medians_of_both_are_shown() -> None:
    text = section([Pair(0.8, 0.5), Pair(0.9, 0.6), Pair(2.0, 1.9)])

    assert "| through the proxy, ms" in text
    assert " 900 " in text
    assert " 600 " in text
