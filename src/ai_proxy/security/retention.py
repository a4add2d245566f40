"""Retention: removes old entries of the audit log and of usage, by age and by number."""

from datetime import UTC, datetime

from loguru import logger

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import Retention
from ai_proxy.core.store_ports import AuditEntry, AuditStore, UsageStore

INTERVAL = 86_400.0
"""Seconds between two removals."""
BATCH = 5_000
"""Entries removed in one transaction, for which all other changes wait."""
PAUSE = 0.1
"""Seconds between two transactions, in which other changes have their turn."""


async def enforce_retention(retention: Retention, audit: AuditStore, usage: UsageStore, clock: Clock) -> None:
    """Remove entries that are too old or too many, at once and then every day, until cancelled.

    Args:
        retention: The bounds.
        audit: The audit log; an entry of its own says how many were removed from it.
        usage: The counts of requests.
        clock: Tells the time.
    """
    while True:
        try:
            await _trim_usage(retention, usage, clock.wall())
            await _trim_audit(retention, audit, clock)
        except StoreError as error:
            logger.warning("cannot remove old usage and audit entries; trying again tomorrow: {}", error)
        await clock.sleep(INTERVAL)


async def _trim_usage(retention: Retention, usage: UsageStore, now: float) -> None:
    oldest = datetime.fromtimestamp(now - retention.usage, UTC).date().isoformat() if retention.usage else ""
    await usage.trim(oldest, retention.usage_rows)


async def _trim_audit(retention: Retention, audit: AuditStore, clock: Clock) -> None:
    oldest = clock.wall() - retention.audit if retention.audit else 0.0
    removed = 0
    for refused in (False, True):
        while count := await audit.trim(oldest, retention.audit_entries, BATCH, refused=refused):
            removed += count
            await clock.sleep(PAUSE)
    if removed:
        detail = f"removed the {removed} oldest entries (store.audit_retention, store.audit_max_entries)"
        await audit.append([AuditEntry(clock.wall(), "proxy", "audit.trim", "local", "ok", detail)])
