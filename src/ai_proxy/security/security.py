"""Keys, policy, limits and audit log, in step with a store."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import Retention
from ai_proxy.core.store_ports import (
    KEYS,
    POLICY,
    AuditStore,
    ChangeFeed,
    KeyStore,
    PolicyStore,
    SettingStore,
    UsageStore,
)
from ai_proxy.platform.tasks import Background, cancel
from ai_proxy.security.audit import AuditLog
from ai_proxy.security.keys import KeyRing
from ai_proxy.security.limiter import Limiter
from ai_proxy.security.pepper import check_pepper
from ai_proxy.security.policy import PolicyHolder
from ai_proxy.security.retention import enforce_retention
from ai_proxy.security.sync import Step, flush_all, follow_changes, write_batches
from ai_proxy.security.usage import UsageLedger


class SecurityStore(Protocol):
    """The repositories that security needs."""

    @property
    def settings(self) -> SettingStore:
        """Settings changed at run time."""

    @property
    def keys(self) -> KeyStore:
        """API keys."""

    @property
    def policies(self) -> PolicyStore:
        """Policies."""

    @property
    def audit(self) -> AuditStore:
        """The audit log."""

    @property
    def usage(self) -> UsageStore:
        """Counts of requests and tokens."""

    @property
    def changes(self) -> ChangeFeed:
        """Changes by other processes."""


@dataclass(frozen=True, slots=True)
class Security:
    """Decides who may do what, and records it.

    Attributes:
        keys: The keys in force.
        policy: The policy in force.
        limiter: Rate limits.
        audit: The audit log.
        usage: Counts of requests and tokens.
    """

    keys: KeyRing
    policy: PolicyHolder
    limiter: Limiter
    audit: AuditLog
    usage: UsageLedger


@asynccontextmanager
async def open_security(
    store: SecurityStore,
    pepper: bytes,
    clock: Clock,
    loads: Mapping[str, Step] | None = None,
    background: Background | None = None,
    retention: Retention | None = None,
) -> AsyncIterator[Security]:
    """Load keys and policy, and keep them and the store in step until the end.

    Args:
        store: Where all of it is kept.
        pepper: As `load_pepper` returns it.
        clock: Tells the time.
        loads: Load what else another instance on the store may change, by its name.
        background: Runs what keeps them in step; None for one of their own.
        retention: What is kept of audit log and usage; None for everything, as in a command.

    Raises:
        StoreError: They cannot be read, or were made with another pepper.
    """
    pending = asyncio.Event()
    keys = KeyRing(store.keys, pepper, clock, pending.set)
    policy = PolicyHolder(store.policies, clock)
    audit = AuditLog(store.audit, clock, pending.set)
    usage = UsageLedger(store.usage, clock, pending.set)
    await keys.load()
    await policy.open()
    await check_pepper(store.settings, pepper, has_keys=keys.has_keys)
    flushes = (keys.flush, usage.flush, audit.flush)
    followed = {KEYS: keys.load, POLICY: policy.load, **(loads or {})}
    writing = asyncio.Lock()
    async with AsyncExitStack() as stack:
        if background is None:
            background = Background(clock.sleep, clock.now, clock.wall)
            stack.push_async_callback(background.close)
        writer = background.run(
            lambda: write_batches(pending, flushes, clock, writing), "writing of usage and refusals"
        )
        follower = background.run(
            lambda: follow_changes(store.changes, followed, clock), "following of keys, policy and settings"
        )
        tasks = [writer, follower]
        if retention is not None:
            keep = partial(enforce_retention, retention, store.audit, store.usage, clock)
            tasks.append(background.run(keep, "retention of audit log and usage"))
        try:
            yield Security(keys, policy, Limiter(lambda: policy.current, clock.now), audit, usage)
        finally:
            async with writing:
                await cancel(*tasks)
            await flush_all(flushes)
