"""What is kept is found again, in SQLite as in PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest
from tests.rigs.fake_detector import detection

from ai_proxy.core.errors import StoreError
from ai_proxy.core.keys import ApiKey, Grant, Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.store_ports import AuditEntry, Instance, Usage
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.testing.fakes import FakeClock

KEY = ApiKey(
    "k1",
    b"\x00\xff" * 16,
    Grant("laptop", frozenset(Scope), frozenset({"llama*"}), Allowance(rpm=0, tpm=10**12)),
    created=1.5,
    expires=2e9,
)
OTHER = ApiKey("k2", b"\x01" * 32, Grant("phone"), created=2.5)
INSTANCE = Instance("h1", "box", 4711, 1.25, "127.0.0.1", 11000, "local-http", ("http://127.0.0.1:11000",))
ENTRY = AuditEntry(100.0, "k1", "key.create", "10.0.0.1", "ok", "for the laptop")


async def test_settings_are_made_changed_and_unmade(store: Store) -> None:
    for value in (1, {"nested": [True, None, 2.5]}):
        await store.settings.put("engine.threshold", value)
    await store.settings.put("gone", "x")
    await store.settings.drop("gone")

    assert await store.settings.all() == {"engine.threshold": {"nested": [True, None, 2.5]}}
    assert await store.settings.get("engine.threshold") == {"nested": [True, None, 2.5]}
    assert await store.settings.get("gone") is None


async def test_an_instance_takes_the_place_of_the_last_one_with_its_id(store: Store) -> None:
    await store.instances.put(INSTANCE)
    await store.instances.put(replace(INSTANCE, id="h2", port=10999))
    await store.instances.put(replace(INSTANCE, last_error="renewal failed"))

    assert [(one.id, one.last_error) for one in await store.instances.all()] == [
        ("h2", ""),
        ("h1", "renewal failed"),
    ]
    await store.instances.drop("h2")
    assert await store.instances.all() == [replace(INSTANCE, last_error="renewal failed")]


async def test_a_key_is_found_as_it_was_kept(store: Store) -> None:
    await store.keys.add(KEY)
    await store.keys.add(OTHER)

    assert await store.keys.all() == [KEY, OTHER]


async def test_a_key_is_revoked_once(store: Store) -> None:
    await store.keys.add(KEY)
    await store.keys.revoke("k1", 50.0)
    await store.keys.revoke("k1", 60.0)

    assert await store.keys.all() == [replace(KEY, revoked=50.0)]


async def test_a_rotation_is_kept_whole_or_not_at_all(store: Store) -> None:
    await store.keys.add(KEY)
    fresh = replace(OTHER, rotated_from="k1")
    with pytest.raises(StoreError):
        await store.keys.rotate(replace(KEY, expires=3.0), replace(fresh, digest=KEY.digest))
    assert await store.keys.all() == [KEY]

    await store.keys.rotate(replace(KEY, expires=3.0), fresh)

    assert await store.keys.all() == [replace(KEY, expires=3.0), fresh]


async def test_the_last_use_never_goes_back(store: Store) -> None:
    await store.keys.add(KEY)
    await store.keys.touch({"k1": 70.0})
    await store.keys.touch({"k1": 60.0, "unheard-of": 1.0})

    assert [key.last_used for key in await store.keys.all()] == [70.0]


async def test_every_policy_is_kept_and_the_last_is_in_force(store: Store) -> None:
    assert await store.policies.current() is None

    await asyncio.gather(*(store.policies.put(float(i), "k1", {"max_request_mb": i}) for i in range(5)))

    history = await store.policies.history()
    assert [one.number for one in history] == [5, 4, 3, 2, 1]
    assert await store.policies.current() == history[0]
    assert await store.policies.history(2) == history[:2]


async def test_changes_of_keys_and_policy_are_counted_for_others_to_see(store: Store) -> None:
    await store.keys.add(KEY)
    await store.keys.revoke("k1", 50.0)
    await store.keys.touch({"k1": 70.0})
    await store.policies.put(1.0, "owner", {})

    assert await store.changes.counts() == {"keys": 2, "policy": 1}


async def test_the_audit_log_is_read_in_its_order_page_by_page(store: Store) -> None:
    await store.audit.append([replace(ENTRY, at=float(at)) for at in range(10)])
    await store.audit.append([])

    first = await store.audit.page(limit=4)
    rest = await store.audit.page(after=first[-1].seq)
    assert [entry.at for entry in (*first, *rest)] == [float(at) for at in range(10)]
    assert [entry.at for entry in await store.audit.page(since=3.0, until=5.0)] == [3.0, 4.0]
    assert await store.audit.last_seq() == rest[-1].seq


async def test_who_follows_the_audit_log_misses_nothing_of_many_writers(url: str, store: Store) -> None:
    seen: list[AuditEntry] = []

    async def follow() -> None:
        while len(seen) < 60:
            seen.extend(await store.audit.page(seen[-1].seq if seen else 0))

    async with asyncio.timeout(60), open_store(url) as other, asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        for writer in (store, other):
            for _ in range(10):
                tasks.create_task(writer.audit.append([ENTRY, ENTRY, ENTRY]))

    assert len({entry.seq for entry in seen}) == 60


async def test_usage_adds_up_by_day_key_and_model(store: Store) -> None:
    today = Usage("k1", "llama3", "2026-05-02", 1, 10, 5)
    await store.usage.add([today, replace(today, key_id="k2"), replace(today, day="2026-05-01")])
    await store.usage.add([today, today])

    assert await store.usage.totals("2026-05-02") == [
        Usage("k1", "llama3", "2026-05-02", 3, 30, 15),
        replace(today, key_id="k2"),
    ]
    assert len(await store.usage.totals(key_id="k1")) == 2


async def test_findings_about_engines_outlive_a_restart_but_not_their_time(url: str, store: Store) -> None:
    clock = FakeClock()
    await store.engine_cache(clock, ttl=300).put(detection("ollama", models=("a", "b")))

    async with open_store(url) as later:
        cache = later.engine_cache(clock, ttl=300)
        assert await cache.get("ollama") == detection("ollama", models=("a", "b"))
        assert await cache.get("vllm") is None
        await cache.put(detection("vllm"))
        await cache.drop("vllm")
        assert await cache.get("vllm") is None
        await clock.advance(300)
        assert await cache.get("ollama") is None


async def test_a_store_that_is_sound_has_no_problems(store: Store) -> None:
    await store.keys.add(KEY)

    assert await store.problems() == []
