"""The API keys, in memory, for every request to look up."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hmac import compare_digest

from ai_proxy.core.errors import InvalidKeyError, InvalidRequestError, StoreError, UnknownKeyError
from ai_proxy.core.keys import (
    MAX_PRESENTED,
    RANDOM_BYTES,
    ApiKey,
    Grant,
    PlainKey,
    check_grant,
    check_valid,
    key_digest,
    plain_key,
    rotate,
)
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import KeyStore
from ai_proxy.platform.listeners import Listeners


class KeyRing:
    """Finds keys by their digests, and writes their changes to the store.

    Args:
        store: Where they are kept.
        pepper: Secret of this installation.
        clock: Tells the time.
        changed: Called when there is something for `flush` to write.
    """

    def __init__(
        self, store: KeyStore, pepper: bytes, clock: Clock, changed: Callable[[], object] = lambda: None
    ) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._by_digest: Mapping[bytes, ApiKey] = {}
        self._by_id: Mapping[str, ApiKey] = {}
        self._changed = changed
        self._exist = False
        self._listeners = Listeners[None]("changes of API keys")
        self._last_used: dict[str, float] = {}
        self._revoking: dict[str, float] = {}
        self._changing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<KeyRing [{len(self._by_digest)} keys]>"

    @property
    def has_keys(self) -> bool:
        """Whether there ever was a key, readable or not: revoking the last one does not open the door."""
        return self._exist

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the keys have changed: what was decided about one may be wrong."""
        self._listeners.add(lambda _: listener())

    def find(self, presented: bytes) -> ApiKey | None:
        """Return the key that was presented, whether or not it is still valid; None for an unknown one.

        The time that a look-up takes reveals nothing: it compares digests that no client can compute.
        """
        if len(presented) > MAX_PRESENTED:
            return None
        digest = key_digest(self._pepper, presented)
        key = self._by_digest.get(digest)
        return key if key is not None and compare_digest(key.digest, digest) else None

    def verify(self, presented: bytes, now: float) -> ApiKey:
        """Return the key that was presented, and note its use.

        Args:
            presented: As sent.
            now: Seconds since the epoch.

        Raises:
            InvalidKeyError: It is unknown, expired or revoked.
        """
        key = self.find(presented)
        if key is None:
            raise InvalidKeyError(
                "this API key is not known here; check that it is complete, or ask for another"
            )
        check_valid(key, now)
        self.note_use(key, now)
        return key

    def note_use(self, key: ApiKey, now: float) -> None:
        """Note when a key was used, in seconds since the epoch."""
        self._last_used[key.id] = now
        self._changed()

    def all(self) -> Sequence[ApiKey]:
        """Return every key, oldest first, with its last use, written or not."""
        seen = self._last_used
        return [
            replace(key, last_used=seen[key.id]) if key.id in seen else key
            for key in self._by_digest.values()
        ]

    def get(self, key_id: str) -> ApiKey:
        """Return a key by its id.

        Raises:
            UnknownKeyError: There is none.
        """
        key = self._by_id.get(key_id)
        if key is None:
            raise UnknownKeyError(key_id)
        return key

    def is_in_force(self, key_id: str) -> bool:
        """Tell whether there is a key of that id, and it was not revoked."""
        key = self._by_id.get(key_id)
        return key is not None and key.revoked is None

    async def load(self) -> None:
        """Load the keys from the store; those being revoked here stay revoked.

        A key that the store cannot read is not valid, but counts as one: the proxy goes on asking for keys.
        """
        async with self._changing:
            keys = await self._store.all()
            self._exist = bool(keys) or await self._store.count() > 0
            self._take(keys)

    async def create(self, grant: Grant, expires: float | None = None) -> tuple[PlainKey, ApiKey]:
        """Create a key; the plain one exists only in the result.

        Args:
            grant: What its holder may do.
            expires: From when on it is no longer good, in seconds since the epoch; None for never.

        Raises:
            InvalidRequestError: The grant is not valid.
            StoreError: The key could not be written, and is not valid.
        """
        check_grant(grant)
        plain = plain_key(secrets.token_bytes(RANDOM_BYTES))
        key = ApiKey(plain.id, self._digest(plain), grant, self._clock.wall(), expires)
        async with self._changing:
            await self._store.add(key)
            self._exist = True
            self._take([*self._by_digest.values(), key])
        return plain, key

    async def rotate(self, key_id: str, overlap: float) -> tuple[PlainKey, ApiKey]:
        """Create a key that takes the place of another; both are valid for a while.

        Args:
            key_id: The old one.
            overlap: Seconds until that ends.

        Raises:
            UnknownKeyError: There is none of that id.
            InvalidRequestError: The old one is revoked or expired.
            StoreError: The new key could not be written, and nothing has changed.
        """
        plain = plain_key(secrets.token_bytes(RANDOM_BYTES))
        async with self._changing:
            now, key = self._clock.wall(), self.get(key_id)
            try:
                check_valid(key, now)
            except InvalidKeyError as error:
                raise InvalidRequestError(
                    f"cannot rotate {key_id}, which is revoked or expired; create a key"
                ) from error
            old, fresh = rotate(key, plain.id, self._digest(plain), now, overlap)
            await self._store.rotate(old, fresh)
            others = (old if other.id == key_id else other for other in self._by_digest.values())
            self._take([*others, fresh])
        return plain, fresh

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key: every request with it is refused from now on, even if the store cannot be written.

        Raises:
            UnknownKeyError: There is none of that id.
            StoreError: It is revoked here, but not yet in the store; `flush` tries that again.
        """
        key = self.get(key_id)
        if key.revoked is not None and key_id not in self._revoking:
            return key
        self._revoking.setdefault(key_id, self._clock.wall())
        self._changed()
        self._take(self._by_digest.values())
        await self._keep_revocations()
        return self.get(key_id)

    async def flush(self) -> None:
        """Write when keys were last used, and the revocations that could not be written before.

        Raises:
            StoreError: They could not be written, and are kept for the next flush.
        """
        await self._keep_revocations()
        seen, self._last_used = self._last_used, {}
        if not seen:
            return
        self._remember(seen)
        try:
            await self._store.touch(seen)
        except StoreError:
            self._last_used = {**seen, **self._last_used}
            raise

    async def _keep_revocations(self) -> None:
        async with self._changing:
            for key_id, at in tuple(self._revoking.items()):
                await self._store.revoke(key_id, at)
                del self._revoking[key_id]

    def _remember(self, seen: Mapping[str, float]) -> None:
        keys = self._by_digest.values()
        self._hold([replace(key, last_used=seen[key.id]) if key.id in seen else key for key in keys])

    def _take(self, keys: Iterable[ApiKey]) -> None:
        """Take on keys that have changed, and inform the listeners."""
        self._hold(keys)
        self._listeners.publish(None)

    def _hold(self, keys: Iterable[ApiKey]) -> None:
        """Swap the keys whole, so that a look-up sees all of a change or nothing."""
        current = [
            replace(key, revoked=self._revoking[key.id])
            if key.revoked is None and key.id in self._revoking
            else key
            for key in keys
        ]
        self._by_digest = {key.digest: key for key in current}
        self._by_id = {key.id: key for key in current}

    def _digest(self, plain: PlainKey) -> bytes:
        return key_digest(self._pepper, plain.text.encode())
