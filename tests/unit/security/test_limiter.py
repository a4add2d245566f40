from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import RateLimitedError
from ai_proxy.core.keys import ApiKey, Grant
from ai_proxy.core.limits import UNSAID, Allowance
from ai_proxy.core.policy import Policy
from ai_proxy.security.limiter import MAX_METERS, Limiter, Meters, enter, leave, rate_limit_headers


class Request:
    """A request that was let in."""

    def __init__(self, meters: Meters, rig: "Rig") -> None:
        self._meters = meters
        self._rig = rig

    def headers(self) -> dict[str, str]:
        lines = rate_limit_headers(self._meters, self._rig.now).decode().splitlines()
        return dict(line.split(": ") for line in lines)

    def end(self, tokens: int = 0) -> None:
        leave(self._meters, self._rig.now, tokens)


class Rig:
    """A limiter, with its time and its policy in the test's hand."""

    def __init__(self, per_key: Allowance = UNSAID, per_ip: Allowance = UNSAID) -> None:
        self.now = 1000.0
        self.policy = Policy(per_key=per_key, per_ip=per_ip)
        self.limiter = Limiter(lambda: self.policy, lambda: self.now)

    def enter(self, key: ApiKey | None = None, address: str = "192.0.2.1") -> Request:
        meters = self.limiter.meters(key, address)
        enter(meters, self.now)
        return Request(meters, self)


def key(name: str = "k1", allowance: Allowance = UNSAID) -> ApiKey:
    return ApiKey(name, b"", Grant(name, allowance=allowance), created=0.0)


def test_without_limits_nothing_is_refused_and_nothing_told() -> None:
    rig = Rig()
    for _ in range(100):
        rig.enter(key())

    assert repr(rig.limiter) == "<Limiter [1 keys, 0 addresses]>"
    assert rig.enter(key()).headers() == {}


def test_a_key_that_asks_too_often_is_told_when_to_come_again() -> None:
    rig = Rig(per_key=Allowance(rpm=60, burst=2))
    rig.enter(key())
    rig.enter(key())

    with pytest.raises(RateLimitedError, match="k1 may make 60 requests per minute; try again") as refused:
        rig.enter(key())

    assert refused.value.retry_after == 1.0
    rig.enter(key("k2"))
    rig.now += 1.0
    rig.enter(key())


def test_an_address_is_limited_whatever_key_it_uses_and_also_without_any() -> None:
    rig = Rig(per_ip=Allowance(rpm=60, burst=2))
    rig.enter(key("k1"))
    rig.enter()

    with pytest.raises(RateLimitedError, match=r"address 192\.0\.2\.1"):
        rig.enter(key("k2"))
    rig.enter(address="192.0.2.2")


def test_whoever_has_a_whole_ipv6_network_is_one_address() -> None:
    rig = Rig(per_ip=Allowance(rpm=60, burst=1))
    rig.enter(address="2001:db8::1")

    with pytest.raises(RateLimitedError):
        rig.enter(address="2001:db8::ffff:1")


def test_a_refused_request_costs_neither_the_key_nor_the_address() -> None:
    rig = Rig(per_key=Allowance(rpm=60, burst=5), per_ip=Allowance(rpm=60, burst=1))
    first = rig.enter(key())
    for _ in range(10):
        with pytest.raises(RateLimitedError):
            rig.enter(key())

    assert first.headers()["x-ratelimit-remaining-requests"] == "4"


def test_tokens_are_charged_after_the_answer_as_a_debt() -> None:
    rig = Rig(per_key=Allowance(tpm=600))
    rig.enter(key()).end(tokens=900)

    with pytest.raises(RateLimitedError, match="600 tokens per minute") as refused:
        rig.enter(key())

    assert refused.value.retry_after == pytest.approx(30.1)
    rig.now += 30.2
    rig.enter(key())


def test_a_place_is_free_when_a_request_is_over() -> None:
    rig = Rig(per_key=Allowance(concurrency=2))
    first, _ = rig.enter(key()), rig.enter(key())
    with pytest.raises(RateLimitedError, match="2 requests in flight"):
        rig.enter(key())

    first.end()

    rig.enter(key())
    with pytest.raises(RateLimitedError):
        rig.enter(key())


def test_a_keys_own_allowance_comes_before_the_policys() -> None:
    rig = Rig(per_key=Allowance(rpm=60, burst=1))
    free, strict = key("free", Allowance(rpm=0)), key("strict", Allowance(concurrency=1))

    for _ in range(10):
        rig.enter(free)
    rig.enter(strict)
    with pytest.raises(RateLimitedError):
        rig.enter(strict)


def test_a_higher_limit_shortens_a_debt() -> None:
    rig = Rig(per_key=Allowance(tpm=60))
    rig.enter(key()).end(tokens=3600)
    rig.policy = replace(rig.policy, per_key=Allowance(tpm=3600))

    with pytest.raises(RateLimitedError) as refused:
        rig.enter(key())

    assert refused.value.retry_after == pytest.approx(1 / 60)


def test_a_new_policy_holds_from_the_next_request_on() -> None:
    rig = Rig(per_ip=Allowance(rpm=60, burst=1))
    rig.enter(key())
    rig.policy = Policy(per_ip=Allowance(rpm=600, burst=10), per_key=Allowance(concurrency=1))
    running = rig.enter(key())

    with pytest.raises(RateLimitedError, match="in flight"):
        rig.enter(key())
    running.end()
    rig.policy = Policy()
    rig.enter(key())


def test_the_client_is_told_how_its_key_stands() -> None:
    rig = Rig(per_key=Allowance(rpm=60, burst=10, tpm=1000), per_ip=Allowance(rpm=5))

    headers = rig.enter(key()).headers()

    assert headers == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "0s",
    }


@pytest.mark.parametrize("pause", [0.0, 61.0])
def test_addresses_without_end_do_not_fill_the_memory(pause: float) -> None:
    rig = Rig(per_ip=Allowance(rpm=1))
    for number in range(MAX_METERS):
        rig.enter(address=f"10.0.{number >> 8}.{number & 255}").end()
    rig.now += pause

    rig.enter(address="192.0.2.1")

    remembered = 1 if pause else MAX_METERS // 2 + 1
    assert repr(rig.limiter) == f"<Limiter [0 keys, {remembered} addresses]>"


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abc"), st.booleans()), max_size=60))
def test_no_more_pass_than_the_rate_and_the_places_allow(steps: list[tuple[float, str, bool]]) -> None:
    rig = Rig(per_key=Allowance(rpm=60, burst=3, concurrency=2))
    running: dict[str, list[Request]] = {name: [] for name in "abc"}
    passed = dict.fromkeys("abc", 0)
    for pause, name, ends in steps:
        rig.now += pause
        if ends and running[name]:
            running[name].pop().end()
        with suppress(RateLimitedError):
            running[name].append(rig.enter(key(name)))
            passed[name] += 1

    assert all(len(places) <= 2 for places in running.values())
    assert all(count <= 3 + (rig.now - 1000.0) + 1e-3 for count in passed.values())
