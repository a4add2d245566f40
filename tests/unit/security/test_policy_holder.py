import pytest

from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.policy import Policy
from ai_proxy.persistence.store import Store
from ai_proxy.security.policy import PolicyHolder
from ai_proxy.testing.fakes import FakeClock


@pytest.fixture
def holder(store: Store, clock: FakeClock) -> PolicyHolder:
    return PolicyHolder(store.policies, clock)


async def test_before_any_was_set_everybody_may_call(holder: PolicyHolder) -> None:
    await holder.load()

    assert holder.current == Policy()
    assert holder.permits("192.0.2.1")


async def test_a_policy_is_in_force_at_once_and_after_a_restart(
    holder: PolicyHolder, store: Store, clock: FakeClock
) -> None:
    assert holder.permits("192.0.2.1")

    revision = await holder.set({"allowlist": ["10.0.0.0/8"]}, "owner")

    later = PolicyHolder(store.policies, clock)
    await later.load()
    for one in (holder, later):
        assert not one.permits("192.0.2.1")
        assert one.permits("10.1.2.3")
        assert one.number == revision.number == 1


async def test_who_listens_hears_of_every_change_until_told_to_stop(holder: PolicyHolder) -> None:
    heard: list[int] = []
    stop = holder.listen(lambda policy: heard.append(policy.max_request_mb))
    await holder.set({"max_request_mb": 1}, "owner")
    await holder.load()
    await holder.set({"max_request_mb": 2}, "owner")
    stop()
    await holder.set({"max_request_mb": 3}, "owner")

    assert heard == [1, 2]


async def test_a_policy_with_errors_changes_nothing(holder: PolicyHolder, store: Store) -> None:
    await holder.set({"max_request_mb": 1}, "owner")

    with pytest.raises(InvalidPolicyError):
        await holder.set({"max_request_mb": -1}, "owner")

    assert holder.current.max_request_mb == 1
    assert [one.number for one in await holder.history()] == [1]


async def test_one_that_makes_no_sense_in_the_store_leaves_the_last_in_force(
    holder: PolicyHolder, store: Store
) -> None:
    await holder.set({"allowlist": ["10.0.0.0/8"]}, "owner")
    await store.policies.put(0.0, "a newer version", {"unheard-of": True})

    with pytest.raises(InvalidPolicyError):
        await holder.load()

    assert not holder.permits("192.0.2.1")


async def test_it_is_kept_and_shown_in_full(holder: PolicyHolder) -> None:
    await holder.set({"per_ip": {"rpm": 60}}, "owner")

    [revision] = await holder.history()
    assert revision.document == holder.document()
    assert holder.document()["per_ip"] == {"rpm": 60}
    assert "cors" in revision.document
