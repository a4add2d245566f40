import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
from tests.rigs.usage import finished

from ai_proxy.core.errors import InvalidKeyError, StoreDamagedError
from ai_proxy.core.keys import Grant
from ai_proxy.core.store_ports import Usage
from ai_proxy.persistence.sqlite import LOOK_EVERY
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.security.security import open_security
from ai_proxy.security.sync import WRITE_EVERY
from ai_proxy.testing.fakes import FakeClock

PEPPER = b"p" * 32


async def until(true: Callable[[], Awaitable[bool]], clock: FakeClock, step: float) -> None:
    """Move time on until something is so; real work goes on in other threads meanwhile."""
    async with asyncio.timeout(60):
        while not await true():
            await clock.advance(step)


async def test_a_key_revoked_by_another_instance_is_refused_here(
    url: str, store: Store, clock: FakeClock
) -> None:
    async with (
        open_security(store, PEPPER, clock) as here,
        open_store(url) as other,
        open_security(other, PEPPER, clock) as elsewhere,
    ):
        plain, key = await elsewhere.keys.create(Grant("laptop"))

        async def known() -> bool:
            await store.changes.counts()
            return here.keys.find(plain.text.encode()) is not None

        await until(known, clock, LOOK_EVERY)
        await elsewhere.keys.revoke(key.id)

        async def revoked() -> bool:
            await store.changes.counts()
            return here.keys.get(key.id).revoked is not None

        await until(revoked, clock, LOOK_EVERY)
        with pytest.raises(InvalidKeyError):
            here.keys.verify(plain.text.encode(), clock.wall())


async def test_a_key_that_cannot_be_read_is_refused_and_ends_nothing(
    url: str, store: Store, clock: FakeClock
) -> None:
    def write(scopes: str) -> None:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
            database.execute("UPDATE api_keys SET scopes = ? WHERE id = ?", (scopes, key.id))

    async with open_security(store, PEPPER, clock) as here:
        plain, key = await here.keys.create(Grant("laptop"))

        async def known() -> bool:
            await store.changes.counts()
            return here.keys.find(plain.text.encode()) is not None

        async def unknown() -> bool:
            return not await known()

        write('["of-a-later-version"]')
        await until(unknown, clock, LOOK_EVERY)
        assert here.keys.has_keys
        write('["inference"]')
        await until(known, clock, LOOK_EVERY)


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_an_unreadable_only_key_keeps_authentication_on(url: str, clock: FakeClock) -> None:
    async with open_store(url) as store, open_security(store, PEPPER, clock) as security:
        await security.keys.create(Grant("laptop"))
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE api_keys SET created = 'yesterday'")

    async with open_store(url) as store, open_security(store, PEPPER, clock) as security:
        assert security.keys.all() == []
        assert security.keys.has_keys


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
@pytest.mark.parametrize("document", ["{", '{"allowlist": "everybody"}'])
async def test_a_policy_that_is_not_valid_permits_nobody_until_another_is_set(
    url: str, clock: FakeClock, document: str
) -> None:
    async with open_store(url) as store, open_security(store, PEPPER, clock) as security:
        await security.policy.set({}, "owner")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE policy SET document = ?", (document,))

    async with open_store(url) as store, open_security(store, PEPPER, clock) as security:
        assert not security.policy.permits("127.0.0.1")
        await security.policy.set({}, "owner")
        assert security.policy.permits("127.0.0.1")


async def test_a_policy_set_by_another_instance_holds_here(url: str, store: Store, clock: FakeClock) -> None:
    async with (
        open_security(store, PEPPER, clock) as here,
        open_store(url) as other,
        open_security(other, PEPPER, clock) as elsewhere,
    ):
        await elsewhere.policy.set({"allowlist": ["10.0.0.0/8"]}, "owner")

        async def refused() -> bool:
            await store.changes.counts()
            return not here.policy.permits("192.0.2.1")

        await until(refused, clock, LOOK_EVERY)


async def test_what_was_counted_is_written_by_and_by(store: Store, clock: FakeClock) -> None:
    async with open_security(store, PEPPER, clock) as security:
        plain, key = await security.keys.create(Grant("laptop"))
        security.keys.verify(plain.text.encode(), clock.wall())
        security.usage.note_all([finished(key_id=key.id, tokens_in=1, tokens_out=2)])
        security.audit.refuse("anonymous", "GET /", "10.0.0.1", "invalid_api_key")

        async def written() -> bool:
            return bool(await store.audit.page())

        await until(written, clock, WRITE_EVERY)
        assert [one.last_used is not None for one in await store.keys.all()] == [True]
        assert [one.requests for one in await store.usage.totals()] == [1]


async def test_what_was_counted_is_written_at_the_end_and_once(store: Store, clock: FakeClock) -> None:
    async with open_security(store, PEPPER, clock) as security:
        _, key = await security.keys.create(Grant("laptop"))
        security.usage.note_all([finished(key_id=key.id, tokens_in=1, tokens_out=2)])

    assert await store.usage.totals() == [Usage(key.id, "llama3", "2023-11-14", 1, 1, 2)]


@pytest.mark.threat("an operator's mistake", "a lost key or revocation")
async def test_keys_made_with_another_pepper_are_not_silently_void(store: Store, clock: FakeClock) -> None:
    async with open_security(store, PEPPER, clock) as security:
        await security.keys.create(Grant("laptop"))

    with pytest.raises(StoreDamagedError, match="pepper"):
        async with open_security(store, b"q" * 32, clock):
            pass
