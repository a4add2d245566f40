"""Retention: what is kept of the audit log and of usage is bounded, by age and by number."""

from datetime import UTC, datetime

from loguru import logger

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import Retention
from ai_proxy.core.store_ports import AuditEntry, AuditStore, UsageStore

EVERY = 86_400.0
"""Seconds between two looks."""
AT_ONCE = 5_000
"""Entries removed in one transaction: others wait for it."""
PAUSE = 0.1
"""Seconds between two of them."""


async def keep_within(retention: Retention, audit: AuditStore, usage: UsageStore, clock: Clock) -> None:
    """Remove what is too old or too much, at once and then every day, until cancelled.

    Args:
        retention: What is kept.
        audit: The audit log; an entry tells what was removed from it.
        usage: The counts of requests.
        clock: Tells the time.
    """
    while True:
        try:
            await _trim_usage(retention, usage, clock.wall())
            await _trim_audit(retention, audit, clock)
        except StoreError as error:
            logger.warning("cannot remove old usage and audit entries, and will try again: {}", error)
        await clock.sleep(EVERY)


async def _trim_usage(retention: Retention, usage: UsageStore, now: float) -> None:
    oldest = datetime.fromtimestamp(now - retention.usage, UTC).date().isoformat() if retention.usage else ""
    await usage.trim(oldest, retention.usage_rows)


async def _trim_audit(retention: Retention, audit: AuditStore, clock: Clock) -> None:
    oldest = clock.wall() - retention.audit if retention.audit else 0.0
    removed = 0
    for refused in (False, True):
        while count := await audit.trim(oldest, retention.audit_entries, AT_ONCE, refused=refused):
            removed += count
            await clock.sleep(PAUSE)
    if removed:
        detail = f"{removed} of the oldest entries were removed, as store.audit_retention and"
        detail += " store.audit_max_entries say"
        await audit.append([AuditEntry(clock.wall(), "proxy", "audit.trim", "local", "ok", detail)])
