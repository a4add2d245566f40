import asyncio

import pytest
from tests.unit.security.broken import Fault, FaultyKeys

from ai_proxy.core.errors import (
    InvalidKeyError,
    InvalidRequestError,
    StoreFullError,
    UnknownKeyError,
)
from ai_proxy.core.keys import MAX_PRESENTED, Grant
from ai_proxy.persistence.store import Store
from ai_proxy.security.keys import KeyRing
from ai_proxy.testing.fakes import FakeClock

PEPPER = b"p" * 32
GRANT = Grant("laptop")


@pytest.fixture
def ring(store: Store, clock: FakeClock) -> KeyRing:
    return KeyRing(store.keys, PEPPER, clock)


async def reloaded(store: Store, clock: FakeClock, pepper: bytes = PEPPER) -> KeyRing:
    ring = KeyRing(store.keys, pepper, clock)
    await ring.load()
    return ring


async def test_a_key_is_good_as_soon_as_it_is_made_and_after_a_restart(
    ring: KeyRing, store: Store, clock: FakeClock
) -> None:
    plain, key = await ring.create(GRANT)

    assert ring.verify(plain.text.encode(), clock.wall()) == key
    assert (await reloaded(store, clock)).verify(plain.text.encode(), clock.wall()) == key


@pytest.mark.parametrize("wrong", [b"", b"aip_", b"aip_" + b"x" * MAX_PRESENTED, b"\xff\x00"])
async def test_anything_else_is_refused(ring: KeyRing, wrong: bytes) -> None:
    await ring.create(GRANT)

    with pytest.raises(InvalidKeyError, match="not known here"):
        ring.verify(wrong, now=0.0)


async def test_a_key_that_is_off_by_one_letter_is_refused(ring: KeyRing) -> None:
    plain, _ = await ring.create(GRANT)

    for text in (plain.text[:-1], plain.text + "0", plain.text.swapcase(), f" {plain.text}"):
        assert ring.find(text.encode()) is None


async def test_a_key_means_nothing_with_another_pepper(ring: KeyRing, store: Store, clock: FakeClock) -> None:
    plain, _ = await ring.create(GRANT)

    assert (await reloaded(store, clock, b"q" * 32)).find(plain.text.encode()) is None


async def test_an_expired_key_is_refused(ring: KeyRing, clock: FakeClock) -> None:
    plain, _ = await ring.create(GRANT, expires=clock.wall() + 10)
    ring.verify(plain.text.encode(), clock.wall() + 9)

    with pytest.raises(InvalidKeyError, match="expired"):
        ring.verify(plain.text.encode(), clock.wall() + 10)


@pytest.mark.threat("an ordinary key", "access after its revocation")
async def test_a_revoked_key_is_refused_at_once_and_after_a_restart(
    ring: KeyRing, store: Store, clock: FakeClock
) -> None:
    plain, key = await ring.create(GRANT)
    await ring.revoke(key.id)

    for one in (ring, await reloaded(store, clock)):
        with pytest.raises(InvalidKeyError, match="was revoked"):
            one.verify(plain.text.encode(), clock.wall())


async def test_who_listens_hears_of_what_becomes_of_keys_but_not_of_their_use(
    ring: KeyRing, clock: FakeClock
) -> None:
    changes: list[bool] = []
    ring.listen(lambda: changes.append(ring.has_keys))

    plain, key = await ring.create(GRANT)
    ring.verify(plain.text.encode(), clock.wall())
    ring.note_use(key, clock.wall())
    await ring.flush()
    await ring.revoke(key.id)

    assert changes == [True, True]


async def test_revoking_twice_is_no_error_and_keeps_the_first_moment(ring: KeyRing, clock: FakeClock) -> None:
    _, key = await ring.create(GRANT)
    first = await ring.revoke(key.id)
    await clock.advance(10)

    assert await ring.revoke(key.id) == first


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_revoking_the_last_key_keeps_authentication_on(ring: KeyRing) -> None:
    assert not ring.has_keys
    _, key = await ring.create(GRANT)
    await ring.revoke(key.id)

    assert ring.has_keys


async def test_both_keys_are_good_while_a_rotation_overlaps(ring: KeyRing, clock: FakeClock) -> None:
    old, key = await ring.create(GRANT)

    new, fresh = await ring.rotate(key.id, overlap=60)

    assert fresh.rotated_from == key.id
    now = clock.wall()
    assert ring.verify(new.text.encode(), now + 61) == fresh
    ring.verify(old.text.encode(), now + 59)
    with pytest.raises(InvalidKeyError):
        ring.verify(old.text.encode(), now + 61)


async def test_a_key_that_is_over_is_not_rotated(ring: KeyRing) -> None:
    _, key = await ring.create(GRANT)
    await ring.revoke(key.id)

    with pytest.raises(InvalidRequestError, match="create a key"):
        await ring.rotate(key.id, overlap=0)


async def test_a_key_that_does_not_exist_is_named(ring: KeyRing) -> None:
    with pytest.raises(UnknownKeyError, match="'nobody'"):
        await ring.revoke("nobody")


async def test_a_grant_that_makes_no_sense_makes_no_key(ring: KeyRing) -> None:
    with pytest.raises(InvalidRequestError):
        await ring.create(Grant(""))

    assert ring.all() == []


async def test_the_last_use_is_seen_at_once_and_kept_with_the_next_batch(
    ring: KeyRing, store: Store, clock: FakeClock
) -> None:
    plain, _ = await ring.create(GRANT)
    ring.verify(plain.text.encode(), clock.wall())
    assert [one.last_used for one in ring.all()] == [clock.wall()]
    assert [one.last_used for one in await store.keys.all()] == [None]

    await ring.flush()

    assert [one.last_used for one in ring.all()] == [clock.wall()]
    assert [one.last_used for one in await store.keys.all()] == [clock.wall()]


async def test_what_cannot_be_written_is_written_later(store: Store, clock: FakeClock) -> None:
    fault = Fault()
    ring = KeyRing(FaultyKeys(store.keys, fault), PEPPER, clock)
    plain, _ = await ring.create(GRANT)
    ring.verify(plain.text.encode(), clock.wall())
    fault.on = True
    with pytest.raises(StoreFullError):
        await ring.flush()

    fault.on = False
    await ring.flush()

    assert [one.last_used for one in await store.keys.all()] == [clock.wall()]


async def test_a_key_that_could_not_be_kept_is_not_good(store: Store, clock: FakeClock) -> None:
    fault = Fault()
    ring = KeyRing(FaultyKeys(store.keys, fault), PEPPER, clock)
    _, key = await ring.create(GRANT)
    fault.on = True

    with pytest.raises(StoreFullError):
        await ring.create(GRANT)
    with pytest.raises(StoreFullError):
        await ring.rotate(key.id, overlap=5)

    assert ring.all() == [key]


async def test_a_revocation_that_could_not_be_kept_holds_all_the_same(store: Store, clock: FakeClock) -> None:
    fault = Fault()
    ring = KeyRing(FaultyKeys(store.keys, fault), PEPPER, clock)
    plain, key = await ring.create(GRANT)
    fault.on = True

    with pytest.raises(StoreFullError):
        await ring.revoke(key.id)
    await ring.load()
    with pytest.raises(InvalidKeyError):
        ring.verify(plain.text.encode(), clock.wall())

    fault.on = False
    await ring.flush()
    assert [one.revoked for one in await store.keys.all()] == [clock.wall()]


async def test_changes_made_at_once_are_all_kept(ring: KeyRing, store: Store, clock: FakeClock) -> None:
    made = await asyncio.gather(*(ring.create(GRANT) for _ in range(10)), return_exceptions=False)

    await asyncio.gather(*(ring.revoke(key.id) for _, key in made[:5]), ring.load(), ring.create(GRANT))

    assert {key.id: key.revoked for key in ring.all()} == {
        key.id: key.revoked for key in await store.keys.all()
    }
    assert sum(key.revoked is not None for key in ring.all()) == 5
    assert len(ring.all()) == 11
