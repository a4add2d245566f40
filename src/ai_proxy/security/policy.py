"""The policy in force, and its listeners."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from loguru import logger

from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.policy import NOBODY, Policy, is_allowed, parse_address
from ai_proxy.core.policy_document import Json, parse_policy, policy_document
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import PolicyRevision, PolicyStore
from ai_proxy.platform.listeners import Listeners

MAX_REMEMBERED = 10_000
"""Addresses whose permission is remembered."""


class PolicyHolder:
    """Holds the policy in force.

    Args:
        store: Where policies are kept.
        clock: Tells the time.

    Attributes:
        current: The policy in force.
        number: Of its revision; 0 for the default policy, and for `NOBODY`.
    """

    def __init__(self, store: PolicyStore, clock: Clock) -> None:
        self.current = Policy()
        self.number = 0
        self._store = store
        self._clock = clock
        self._permitted: dict[str, bool] = {}
        self._listeners = Listeners[Policy]("changes of the policy")
        self._changing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<PolicyHolder [revision {self.number}]>"

    def permits(self, address: str) -> bool:
        """Tell whether the allowlist permits an address."""
        permitted = self._permitted.get(address)
        if permitted is None:
            if len(self._permitted) >= MAX_REMEMBERED:
                self._permitted.clear()
            permitted = is_allowed(parse_address(address), self.current.allowlist)
            self._permitted[address] = permitted
        return permitted

    def listen(self, listener: Callable[[Policy], None]) -> Callable[[], None]:
        """Call `listener` with every new policy until the returned function is called."""
        return self._listeners.add(listener)

    async def load(self) -> None:
        """Load the policy from the store.

        Raises:
            InvalidPolicyError: It is not valid; the last one stays in force.
        """
        async with self._changing:
            revision = await self._store.current()
            if revision is not None and revision.number != self.number:
                self._take(revision)

    async def open(self) -> None:
        """Load the policy for the first time; if it is not valid, no client is permitted until one is set."""
        try:
            await self.load()
        except InvalidPolicyError as error:
            logger.error("every client is refused, because the policy is not valid: {}", error.detail)
            self.current = NOBODY

    async def set(self, document: object, who: str) -> PolicyRevision:
        """Put a policy in force, here and in the store.

        Args:
            document: As `parse_policy` reads it.
            who: The id of the key that sets it, or `owner`.

        Raises:
            InvalidPolicyError: It has errors, and nothing has changed.
            StoreError: It could not be written, and nothing has changed.
        """
        full = policy_document(parse_policy(document))
        async with self._changing:
            revision = await self._store.put(self._clock.wall(), who, full)
            self._take(revision)
        return revision

    def document(self) -> Mapping[str, Json]:
        """Return the policy in force, as a document."""
        return policy_document(self.current)

    async def history(self, limit: int = 100) -> Sequence[PolicyRevision]:
        """Return the last policies that were set, newest first."""
        return await self._store.history(limit)

    def _take(self, revision: PolicyRevision) -> None:
        self.current = parse_policy(revision.document)
        self.number = revision.number
        self._permitted = {}
        self._listeners.publish(self.current)
