import asyncio

import pytest
from tests.unit.security.broken import Fault, FaultyAudit

from ai_proxy.core.errors import StoreFullError
from ai_proxy.core.keys import RANDOM_BYTES, plain_key
from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.store import Store
from ai_proxy.security.audit import EVERYTHING, MAX_TEXT, PAGE, POLL, REFUSALS, AuditLog
from ai_proxy.testing.fakes import FakeClock


@pytest.fixture
def audit(store: Store, clock: FakeClock) -> AuditLog:
    return AuditLog(store.audit, clock)


async def exported(audit: AuditLog) -> list[AuditEntry]:
    return [entry async for entry in audit.export()]


async def test_what_is_done_is_on_disk_on_return(audit: AuditLog, store: Store, clock: FakeClock) -> None:
    await audit.record("k1", "service.stop llama3", "10.0.0.1")

    assert await store.audit.page() == [
        AuditEntry(clock.wall(), "k1", "service.stop llama3", "10.0.0.1", "ok", seq=1)
    ]


async def test_the_same_refusal_is_counted_and_written_with_the_next_batch(audit: AuditLog) -> None:
    for _ in range(1000):
        audit.refuse("anonymous", "GET /v1/models", "10.0.0.1", "invalid_api_key")
    audit.refuse("anonymous", "GET /v1/models", "10.0.0.2", "invalid_api_key")
    assert await exported(audit) == []

    await audit.flush()
    await audit.flush()

    assert [(entry.where_from, entry.count) for entry in await exported(audit)] == [
        ("10.0.0.1", 1000),
        ("10.0.0.2", 1),
    ]


async def test_a_flood_of_refusals_is_counted_whole_but_not_written_one_by_one(audit: AuditLog) -> None:
    for number in range(5000):
        audit.refuse("anonymous", f"GET /{number}", "10.0.0.1", "invalid_api_key")

    await audit.flush()

    entries = await exported(audit)
    assert len(entries) == REFUSALS.burst + 1
    assert sum(entry.count for entry in entries) == 5000
    assert entries[-1].what == EVERYTHING


async def test_what_cannot_be_written_is_counted_on_and_written_later(store: Store, clock: FakeClock) -> None:
    fault = Fault()
    audit = AuditLog(FaultyAudit(store.audit, fault), clock)
    fault.on = True
    with pytest.raises(StoreFullError):
        await audit.record("k1", "key.create", "local")
    for path in ("/a", "/a", "/b"):
        audit.refuse("anonymous", path, "10.0.0.1", "forbidden")
        with pytest.raises(StoreFullError):
            await audit.flush()

    fault.on = False
    await audit.flush()

    assert [(entry.what, entry.count) for entry in await exported(audit)] == [("/a", 2), ("/b", 1)]


async def test_no_key_and_no_endless_or_broken_text_is_written(audit: AuditLog) -> None:
    plain = plain_key(bytes(RANDOM_BYTES))
    audit.refuse("anonymous", f"GET /{plain.text}/\x00\ud800" + "x" * 1000, "10.0.0.1", "forbidden")

    await audit.flush()

    [entry] = await exported(audit)
    assert plain.text not in entry.what
    assert plain.id in entry.what
    assert 250 < len(entry.what) <= MAX_TEXT


async def test_an_export_goes_over_pages_and_between_moments(
    audit: AuditLog, store: Store, clock: FakeClock
) -> None:
    await store.audit.append([AuditEntry(float(at), "k1", "x", "local", "ok") for at in range(PAGE + 10)])

    assert [entry.at for entry in await exported(audit)] == [float(at) for at in range(PAGE + 10)]
    assert [entry.at async for entry in audit.export(since=5.0, until=7.0)] == [5.0, 6.0]


async def test_who_follows_sees_what_comes_from_now_on_also_from_others(
    audit: AuditLog, store: Store, clock: FakeClock
) -> None:
    await audit.record("k1", "before", "local")
    follower = audit.follow()
    first = asyncio.ensure_future(anext(follower))  # noqa: TID251 - an awaitable that must begin at once
    await store.audit.last_seq()
    await AuditLog(store.audit, clock).record("k2", "after", "local")

    async with asyncio.timeout(60):
        while not first.done():
            await clock.advance(POLL)
            await store.audit.last_seq()

    assert (await first).what == "after"


async def test_who_follows_from_a_place_sees_what_came_since(audit: AuditLog) -> None:
    for what in ("one", "two", "three"):
        await audit.record("k1", what, "local")

    follower = audit.follow(after=1)

    assert [(await anext(follower)).what for _ in range(2)] == ["two", "three"]
