"""What is kept of the audit log and of usage is bounded, on both databases."""

import asyncio

import pytest

from ai_proxy.core.errors import StoreError
from ai_proxy.core.settings import Retention
from ai_proxy.core.store_ports import AuditEntry, Usage
from ai_proxy.persistence.database import Database, parse_url
from ai_proxy.persistence.store import Store
from ai_proxy.platform.tasks import cancel, spawn
from ai_proxy.security.retention import INTERVAL, PAUSE, enforce_retention
from ai_proxy.testing.fakes import FakeClock


def action(at: float, what: str) -> AuditEntry:
    return AuditEntry(at, "owner", what, "local", "ok")


def refusal(at: float, what: str = "GET /") -> AuditEntry:
    return AuditEntry(at, "anonymous", what, "192.0.2.1", "missing_api_key", refused=True)


async def whats(store: Store) -> list[str]:
    return [entry.what for entry in await store.audit.page()]


async def test_the_oldest_entries_go_by_age_a_batch_at_a_time(store: Store) -> None:
    await store.audit.append([action(float(at), str(at)) for at in range(10)])

    removed = [await store.audit.trim(7.0, 100, 4, refused=False) for _ in range(3)]

    assert removed == [4, 3, 0]
    assert await whats(store) == ["7", "8", "9"]


async def test_an_old_entry_behind_a_younger_one_waits_for_it(store: Store) -> None:
    await store.audit.append([action(1.0, "a"), action(9.0, "the clock was set back"), action(2.0, "b")])

    await store.audit.trim(5.0, 100, 100, refused=False)

    assert await whats(store) == ["the clock was set back", "b"]


async def test_a_log_that_is_old_altogether_goes(store: Store) -> None:
    await store.audit.append([action(1.0, "a"), refusal(1.0)])

    for refused in (True, False):
        assert await store.audit.trim(5.0, 100, 100, refused=refused) == 1

    assert await whats(store) == []


@pytest.mark.threat("somebody on the network", "a gap in the audit log")
async def test_a_flood_of_refusals_displaces_no_action(store: Store) -> None:
    await store.audit.append([action(1.0, "key.create"), *[refusal(2.0, f"GET /{n}") for n in range(20)]])

    for refused in (True, False):
        await store.audit.trim(0.0, 5, 100, refused=refused)

    assert await whats(store) == ["key.create", *[f"GET /{n}" for n in range(15, 20)]]


@pytest.mark.threat("an operator's mistake", "a changed audit log")
async def test_entries_within_their_retention_cannot_be_deleted(store: Store, url: str) -> None:
    await store.audit.append([action(1.0, "a"), action(9.0, "b"), refusal(1.0)])
    await store.audit.trim(5.0, 100, 100, refused=False)

    async with Database(parse_url(url)) as database:
        with pytest.raises(StoreError, match="can only be added to"):
            await database.write(lambda tx: tx.run("DELETE FROM audit WHERE what = 'b'"))
        with pytest.raises(StoreError, match="can only be added to"):
            await database.write(lambda tx: tx.run("DELETE FROM audit WHERE refused = 1"))

    assert await whats(store) == ["b", "GET /"]


async def test_usage_goes_by_age_and_by_number_the_oldest_first(store: Store) -> None:
    days = [f"2026-01-{day:02}" for day in range(1, 11)]
    await store.usage.add([Usage("k", model, day, 1) for day in days for model in ("a", "b")])

    await store.usage.trim("2026-01-03", 100)
    by_age = [one.day for one in await store.usage.totals()]
    await store.usage.trim("", 3)
    by_number = [(one.day, one.model) for one in await store.usage.totals()]

    assert (by_age[0], len(by_age)) == ("2026-01-03", 16)
    assert by_number == [("2026-01-09", "a"), ("2026-01-10", "a"), ("2026-01-10", "b")]


async def test_an_entry_tells_what_was_removed_and_it_goes_on_every_day(store: Store) -> None:
    clock = FakeClock()
    now = clock.wall()
    await store.audit.append([action(now - 100, "old"), action(now, "new")])
    retention = Retention(audit=50.0, usage=0.0)
    keeping = spawn(enforce_retention(retention, store.audit, store.usage, clock), "retention")

    async def told(detail: str) -> list[str]:
        async with asyncio.timeout(60):
            while detail not in [entry.detail[: len(detail)] for entry in await store.audit.page()]:
                await clock.advance(PAUSE)
        return await whats(store)

    first = await told("removed the 1 oldest entries")
    await clock.advance(INTERVAL)
    second = await told("removed the 2 oldest entries")
    await cancel(keeping)

    assert (first, second) == (["new", "audit.trim"], ["audit.trim"])
