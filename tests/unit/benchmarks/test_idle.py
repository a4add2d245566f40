import pytest
from benchmarks.idle import Idle, holds, section
from benchmarks.proxies import OURS, REFERENCE


@pytest.mark.parametrize(
    ("one", "held"),
    [
        (Idle(OURS, 70.0, 0.29), True),
        (Idle(OURS, 70.0, 0.31), False),
        (Idle(OURS, 70.1, 0.1), False),
        (Idle(REFERENCE, 700.0, 99.0), True),
    ],
)
def test_only_the_proxy_has_limits(one: Idle, held: bool) -> None:
    assert holds(one) is held


def test_a_limit_that_is_missed_is_told() -> None:
    text = section([Idle(OURS, 60.0, 2.5), Idle(REFERENCE, 10.0, 0.0)], 60.0)

    assert "MISSED" in text.splitlines()[2]
    assert "2.500" in text
