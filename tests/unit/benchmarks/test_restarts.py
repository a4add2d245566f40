from benchmarks.restarts import Restart, section


def test_the_median_restart_is_held_against_its_limit() -> None:
    quick = section([Restart(1.5, 0.5), Restart(1.0, 0.5), Restart(9.0, 0.5)])
    slow = section([Restart(2.5, 0.5)])

    assert "held" in quick
    assert "9.50" in quick
    assert "MISSED" in slow
