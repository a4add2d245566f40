"""Everything fails, in an order drawn from a seed: no answer is wrong, and in the end nothing is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import engine_with_image
from tests.e2e.chaos.clients import Clients, Verdict, request
from tests.e2e.chaos.comparison import differences
from tests.e2e.chaos.house import House
from tests.e2e.chaos.operations import KINDS, carry_out, plan
from tests.e2e.conftest import Proxy, eventually

SETTLED = 40.0
"""Longest time, in seconds, that the proxy may take to put everything in order."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        seed = metafunc.config.getoption("--chaos-seed")
        count = metafunc.config.getoption("--chaos-operations")
        limit = pytest.mark.timeout(180 + 2 * count)
        case = pytest.param(seed, count, marks=limit, id=f"seed {seed}, {count} operations")
        metafunc.parametrize(("seed", "count"), [case])


@pytest.fixture
def house(proxy: Proxy, image_archive: Path) -> Iterator[House]:
    with engine_with_image(image_archive) as engine:
        proxy.environment["DOCKER_HOST"] = engine.host
        house = House(proxy, engine)
        yield house
        house.clean_up()


def test_chaos_brings_no_wrong_answer_and_leaves_nothing_behind(house: House, seed: int, count: int) -> None:
    clients = Clients(house, seed)
    house.open()

    with clients.asking():
        for operation in plan(seed, count):
            carry_out(house, operation)
            time.sleep(operation.rest)
        house.calm()
    house.say(f"answers: {dict(clients.reasons)}")

    settle(house)
    assert_all_answer(house)
    assert_nothing_is_left(house)
    assert house.faults == []
    assert "Traceback" not in house.proxy.log.read_text()
    assert clients.verdicts[Verdict.RIGHT] > count / 4


def settle(house: House) -> None:
    """Wait until the proxy's view is the engine's, and nothing is under way."""
    found = [""]

    def look() -> bool:
        found[:] = differences(house.views(), house.containers(), house.proxy.backends())
        return not found

    try:
        eventually(look, SETTLED)
    except AssertionError:
        raise AssertionError(f"{'\n'.join(found)}\n\n{last_words(house)}") from None


def last_words(house: House) -> str:
    return house.proxy.log.read_text()[-5000:]


def assert_all_answer(house: House) -> None:
    """Every service answers; those that were stopped by hand or rest after failures when they are started."""
    for name, view in house.views().items():
        if view["held"] or view["state"] == "failed":
            house.order(name, "start")
        assert request(house, name, streamed=True) == (Verdict.RIGHT, ""), f"{name}\n\n{last_words(house)}"
    settle(house)


def assert_nothing_is_left(house: House) -> None:
    for name in house.views():
        answer = house.order(name, "stop", wait=20.0)
        assert answer is not None
        assert answer.status == 200
    eventually(lambda: not house.containers() and not house.proxy.backends())
    assert {view["state"] for view in house.views().values()} == {"stopped"}
    house.end_proxy()


def test_the_same_seed_draws_the_same_operations() -> None:
    once, again = list(plan(7, 500)), list(plan(7, 500))

    assert once == again
    assert {operation.name for operation in once} == set(KINDS)
