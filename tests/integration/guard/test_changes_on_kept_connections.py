"""Whatever changes of keys and policy, every answer on every kept connection is as they say by then.

What the guard says of a head is kept with it: this looks for a change after which it is not asked again.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.integration.gateway.models import CHAT, JSON, offer
from tests.integration.guard.conftest import House, bearer, guarded
from tests.rigs.raw_http import RawClient, build_request

from ai_proxy.core.keys import ApiKey, Scope

TARGETS = {"service": b"/service/svc/x", "chat": CHAT, "manage": b"/api/v1/keys", "health": b"/health"}
PAGE = b"https://chat.example"
CONNECTIONS = 3
EVERYBODY = ["127.0.0.0/8"]
OTHERS = ["192.0.2.0/24"]
INFERENCE, MANAGING = frozenset({Scope.INFERENCE}), frozenset({Scope.ADMIN})
grants = st.sampled_from(
    [
        *((INFERENCE, models) for models in ((), ("svc",), ("other*",))),
        *((scopes, ()) for scopes in (MANAGING, INFERENCE | MANAGING)),
    ]
)


class Changes(RuleBasedStateMachine):
    """A guarded gateway beside a model of it: which key is good until when, and what the policy says."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.stack = AsyncExitStack()
        self.house = self.run(self.open())
        self.keys: list[tuple[bytes, ApiKey]] = []
        self.ends: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.policy: dict[str, Any] = {}
        self.clients: dict[int, RawClient] = {}
        self.said: dict[int, tuple[str, tuple[bytes, ApiKey] | None, bool]] = {}

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self) -> House:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        house = await self.stack.enter_async_context(guarded(folder))
        house.rig.gateway.publish([offer()])
        return house

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    def expected(self, what: str, who: tuple[bytes, ApiKey] | None, page: bool) -> str:
        """Return the code of the error that a request is to be answered with; empty for none."""
        if self.policy.get("allowlist") == OTHERS:
            return "address_refused"
        if not self.keys:
            return "origin_refused" if page and "cors" not in self.policy else ""
        if who is None:
            return "" if what == "health" else "missing_api_key"
        key = who[1]
        if key.id in self.revoked or self.ends.get(key.id, float("inf")) <= self.house.clock.wall():
            return "invalid_api_key"
        wanted = {"manage": Scope.ADMIN, "health": None}.get(what, Scope.INFERENCE)
        if wanted is not None and wanted not in key.grant.scopes:
            return "forbidden"
        restricted = what in ("service", "chat") and key.grant.models not in ((), {"svc"}, frozenset())
        return "forbidden" if restricted else ""

    async def ask(self, number: int, request: bytes) -> tuple[str, bytes | None]:
        if number not in self.clients:
            self.clients[number] = await self.house.rig.client()
        response = await self.clients[number].ask(request)
        return (response.error_code or b"").decode(), response.header(b"access-control-allow-origin")

    @rule(
        number=st.integers(0, CONNECTIONS - 1),
        what=st.sampled_from([*TARGETS]),
        which=st.integers(-1, 5),
        page=st.booleans(),
    )
    def request(self, number: int, what: str, which: int, page: bool) -> None:
        who = self.keys[which % len(self.keys)] if self.keys and which >= 0 else None
        self.said[number] = what, who, page

    @invariant()
    def every_connection_is_told_what_holds_now(self) -> None:
        """Each repeats what it asked last, with the very same head."""
        for number, (what, who, page) in self.said.items():
            headers = (*([bearer(who[0])] if who else []), *([b"Origin: " + PAGE] if page else []))
            body = b'{"model": "svc"}' if what == "chat" else b""

            error, allowed = self.run(
                self.ask(number, build_request(TARGETS[what], JSON, *headers, body=body))
            )

            assert error == self.expected(what, who, page)
            may_read = page and "cors" in self.policy and error != "address_refused"
            assert allowed == (PAGE if may_read else None)

    @precondition(lambda self: len(self.keys) < 6)
    @rule(grant=grants, life=st.sampled_from([None, 10.0]))
    def create(self, grant: tuple[frozenset[Scope], tuple[str, ...]], life: float | None) -> None:
        scopes, models = grant
        expires = None if life is None else self.house.clock.wall() + life
        plain, key = self.run(self.house.key(*scopes, expires=expires, models=frozenset(models)))
        self.keys.append((plain, key))
        if expires is not None:
            self.ends[key.id] = expires

    @precondition(lambda self: self.keys)
    @rule(which=st.integers(0, 5))
    def revoke(self, which: int) -> None:
        key = self.keys[which % len(self.keys)][1]
        self.run(self.house.security.keys.revoke(key.id))
        self.revoked.add(key.id)

    @precondition(lambda self: self.keys)
    @rule(which=st.integers(0, 5))
    def revoke_elsewhere(self, which: int) -> None:
        """Another program on the same store does so; this one reads the store again."""
        key = self.keys[which % len(self.keys)][1]

        async def elsewhere() -> None:
            await self.house.store.keys.revoke(key.id, self.house.clock.wall())
            await self.house.security.keys.load()

        self.run(elsewhere())
        self.revoked.add(key.id)

    @precondition(lambda self: 0 < len(self.keys) < 6)
    @rule(which=st.integers(0, 5), overlap=st.sampled_from([0.0, 20.0]))
    def rotate(self, which: int, overlap: float) -> None:
        key, now = self.keys[which % len(self.keys)][1], self.house.clock.wall()
        if key.id in self.revoked or self.ends.get(key.id, float("inf")) <= now:
            return
        plain, fresh = self.run(self.house.security.keys.rotate(key.id, overlap))
        if key.id in self.ends:
            self.ends[fresh.id] = self.ends[key.id]
        self.ends[key.id] = min(self.ends.get(key.id, float("inf")), now + overlap)
        self.keys.append((plain.text.encode(), fresh))

    @rule(seconds=st.sampled_from([1.0, 15.0, 45.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.house.clock.advance(seconds))
        self.house.rig.gateway.shared.guard.sweep()

    @rule(
        allowlist=st.sampled_from([None, EVERYBODY, OTHERS]),
        cors=st.booleans(),
        per_key=st.sampled_from([0, 10**6]),
    )
    def change_policy(self, allowlist: list[str] | None, cors: bool, per_key: int) -> None:
        self.policy = {"per_key": {"rpm": per_key}}
        if allowlist is not None:
            self.policy["allowlist"] = allowlist
        if cors:
            self.policy["cors"] = {"origins": [PAGE.decode()]}
        self.run(self.house.policy(**self.policy))

    @rule()
    def publish(self) -> None:
        """Services are declared again."""
        self.house.rig.gateway.publish([offer()])


@pytest.mark.threat("an ordinary key", "a new request after its expiry")
async def test_a_cached_head_is_checked_again_when_its_key_expires(house: House) -> None:
    plain, _ = await house.key(expires=house.clock.wall() + 60)
    client = await house.rig.client()
    request = build_request(b"/service/svc/x", bearer(plain))
    assert [(await client.ask(request)).status for _ in range(3)] == [200] * 3

    await house.clock.advance(60)
    house.rig.gateway.shared.guard.sweep()

    assert (await client.ask(request)).error_code == b"invalid_api_key"


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
