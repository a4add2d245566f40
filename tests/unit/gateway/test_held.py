import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import OverloadedError
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.held import HeldBytes

LIMITS = Limits(max_json_body=10, max_held_bodies=100, max_held_bodies_per_client=40)


@pytest.mark.threat("an ordinary key", "more memory than its budget")
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 30), st.booleans())))
def test_held_bytes_stay_within_both_budgets(steps: list[tuple[str, int, bool]]) -> None:
    held, taken = HeldBytes(LIMITS), list[tuple[str, int]]()

    for client, count, takes in steps:
        if takes:
            try:
                held.take(client, count)
            except OverloadedError:
                own = sum(size for whose, size in taken if whose == client)
                assert own + count > 40 or held.total + count > 100
            else:
                taken.append((client, count))
        elif taken:
            held.give_back(*taken.pop())
        assert held.total == sum(size for _, size in taken) <= 100

    for one in taken:
        held.give_back(*one)
    assert repr(held) == "<HeldBytes [0 of 100, 0 clients]>"


def test_the_largest_body_fits_whatever_the_limits_say() -> None:
    held = HeldBytes(Limits(max_json_body=50, max_held_bodies=1, max_held_bodies_per_client=1))

    held.take("a", 50)

    assert held.total == 50
