import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.api.house import House

from ai_proxy.api.policy import locks_out
from ai_proxy.core.policy import Policy
from ai_proxy.core.policy_document import POLICY_SCHEMA, parse_policy, policy_document

ELSEWHERE = {"allowlist": ["10.0.0.0/8"]}


async def test_the_policy_is_shown_in_full_and_can_be_put_back(house: House) -> None:
    shown = await house.ask("GET", "/policy")

    said = await house.ask("PUT", "/policy", {**shown.body, "max_request_mb": 5})

    assert shown.body == policy_document(Policy())
    assert (said.status, said.body["number"], said.body["who"]) == (200, 1, "0123456789ab")
    assert house.state.security.policy.current == Policy(max_request_mb=5)


async def test_a_policy_with_errors_changes_nothing(house: House) -> None:
    said = await house.ask("PUT", "/policy", {"allow": [], "max_request_mb": "5"})

    assert (said.status, said.code) == (422, "invalid_policy")
    assert said.body["detail"].splitlines() == [
        "allow: unknown; did you mean 'allowlist'?",
        "max_request_mb: must be a whole number, not '5'",
    ]
    assert house.state.security.policy.number == 0


async def test_who_would_be_locked_out_is_told_so(house: House) -> None:
    said = await house.ask("PUT", "/policy", ELSEWHERE)

    assert (said.status, said.code) == (409, "policy_locks_out")
    assert "192.0.2.7" in said.body["detail"]
    assert house.state.security.policy.number == 0


async def test_who_insists_may_lock_himself_out(house: House) -> None:
    said = await house.ask("PUT", "/policy?force=true", ELSEWHERE)

    assert said.status == 200
    assert not house.state.security.policy.permits("192.0.2.7")


async def test_the_owner_cannot_be_locked_out(house: House) -> None:
    assert (await house.ask("PUT", "/policy", ELSEWHERE, as_owner=True)).status == 200


async def test_who_set_which_policy_is_told(house: House) -> None:
    await house.ask("PUT", "/policy", {"max_request_mb": 1})
    await house.ask("PUT", "/policy", {"max_request_mb": 2}, as_owner=True)

    said = await house.ask("GET", "/policy/history")

    told = [(one["number"], one["who"], one["policy"]["max_request_mb"]) for one in said.body["revisions"]]
    assert told == [(2, "owner", 2), (1, "0123456789ab", 1)]
    assert len((await house.ask("GET", "/policy/history?limit=1")).body["revisions"]) == 1


async def test_the_schema_is_that_by_which_policies_are_read(house: House) -> None:
    assert (await house.ask("GET", "/policy/schema")).body == POLICY_SCHEMA


@pytest.mark.parametrize("body", [[], "text", None, 5])
async def test_what_is_no_policy_at_all_is_refused(house: House, body: object) -> None:
    assert (await house.ask("PUT", "/policy", body)).status == 422


ADDRESSES = st.ip_addresses().filter(lambda one: getattr(one, "ipv4_mapped", None) is None)
"""IPv4 within IPv6 is IPv4."""


@given(ADDRESSES, ADDRESSES)
def test_only_who_is_not_named_is_locked_out(here: object, there: object) -> None:
    policy = parse_policy({"allowlist": [str(here)]})

    assert not locks_out(policy, str(here))
    assert locks_out(policy, str(there)) is (here != there)
