"""Checks of the store: its schema, its integrity, its pepper and its API keys."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from ai_proxy.config.build import security_settings, store_url
from ai_proxy.core.errors import StoreError
from ai_proxy.core.keys import ApiKey
from ai_proxy.core.policy import is_exposed
from ai_proxy.doctor.finding import Finding, ok, problem, shorten, warning
from ai_proxy.doctor.installation import Installation
from ai_proxy.persistence.database import Database, database_file, file_url, parse_url
from ai_proxy.persistence.file import database_problems, is_empty
from ai_proxy.persistence.mark import SecuredMark, lost
from ai_proxy.persistence.migrate import MIGRATIONS, schema_of
from ai_proxy.persistence.store import Store
from ai_proxy.security.pepper import FILE_NAME as PEPPER
from ai_proxy.security.pepper import SETTING, check_pepper, load_pepper

STORE, KEYS = "store", "API keys"
PATIENCE = 1.5
"""Seconds to wait for another process that writes, and for an integrity check."""
SOON = 7 * 86400.0
"""Seconds before its expiry from which on a key is reported."""


def classify_schema(where: str, found: str | None, head: str) -> Finding | None:
    """Return a finding about a schema; None when it is current."""
    if found == head:
        return None
    if found is None:
        return ok(STORE, f"{where} is empty; the first start creates its tables")
    if found > head:
        text = f"{where} was written by a newer ai-proxy: schema {found}, this one supports up to {head}"
        return problem(STORE, text, "install the newer version, or restore an older backup")
    return ok(STORE, f"{where} has schema {found}; the next start copies it and migrates it to {head}")


def classify_failure(error: StoreError) -> Finding:
    """Return why the store is unusable; the error itself says what to do.

    >>> classify_failure(StoreError("the store x is damaged; restore it")).fix
    'restore it'
    """
    text, _, fix = error.detail.partition("; ")
    return problem(STORE, shorten(text), shorten(fix) or "see docs/operations.md")


def classify_keys(
    keys: Sequence[ApiKey], host: str, now: float, *, allow_unauthenticated: bool
) -> list[Finding]:
    """Return findings about the API keys, and whether one is needed.

    Args:
        keys: All keys, including revoked and expired ones.
        host: Address the proxy listens on.
        now: Seconds since the epoch.
        allow_unauthenticated: Whether the configuration allows clients without a key.
    """
    good = [key for key in keys if key.revoked is None and (key.expires is None or key.expires > now)]
    found = [_expiring(key, now) for key in good if key.expires is not None and key.expires - now < SOON]
    if keys and not good:
        fix = "ai-proxy api-keys create"
        return [warning(KEYS, "all are revoked or expired: only the control socket gives access", fix)]
    if keys:
        return found or [ok(KEYS, f"{len(good)} of {len(keys)} are valid")]
    if not is_exposed(host):
        return [ok(KEYS, f"none; only this machine can reach {host}")]
    if allow_unauthenticated:
        fix = "create a key (ai-proxy api-keys create) and remove security.allow_unauthenticated"
        return [warning(KEYS, f"none, and {host} is reachable by others, who can all use it", fix)]
    fix = "create one: ai-proxy api-keys create; or listen on 127.0.0.1"
    return [problem(KEYS, f"none, and {host} is reachable by others: the proxy refuses to start", fix)]


def _expiring(key: ApiKey, now: float) -> Finding:
    ends = key.expires or now
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = f"{key.grant.label or key.id} ({key.id}) expires on {day}"
    return warning(KEYS, text, f"ai-proxy api-keys rotate {key.id}, and give the new key to its users")


async def check_store(installation: Installation) -> Sequence[Finding]:
    """Check the store without changing it: an old schema is not migrated."""
    url = store_url(installation.config)
    file = database_file(url, installation.data)
    mark = SecuredMark(installation.data)
    if file is not None and mark.is_set and is_empty(file):
        return [classify_failure(lost(str(file)))]
    if file is not None and not file.exists():
        return [
            ok(STORE, f"{file} does not exist yet; the first start creates it"),
            *_check_keys(installation, ()),
        ]
    parsed = parse_url(url or file_url(installation.data))
    async with Database(parsed, patience=PATIENCE) as database:
        try:
            if said := classify_schema(database.where, await schema_of(database), MIGRATIONS.head):
                return [said]
            if mark.is_set and not await Store(database).is_secured():
                return [classify_failure(lost(database.where))]
            return [*await _check_integrity(database), *await _check_content(Store(database), installation)]
        except StoreError as error:
            return [classify_failure(error)]


async def _check_integrity(database: Database) -> Sequence[Finding]:
    """Check the integrity of a database, if it is a file of this machine."""
    sound = f"{database.where} is intact, schema {MIGRATIONS.head}"
    if database.url.path is None:
        return [ok(STORE, sound)]
    try:
        problems = await asyncio.to_thread(database_problems, database.url.path, PATIENCE)
    except TimeoutError:
        return [ok(STORE, f"{sound}; it is too large for a full check here")]
    fix = "stop the proxy and run: ai-proxy backup restore FILE"
    return [problem(STORE, shorten(one), fix) for one in problems] or [ok(STORE, sound)]


async def _check_content(store: Store, installation: Installation) -> Sequence[Finding]:
    keys = await store.keys.all()
    pepper = installation.data / PEPPER
    if unreadable := await store.keys.count() - len(keys):
        text = f"{unreadable} cannot be read, so requests with them are refused"
        return [problem(KEYS, text, "install the ai-proxy that made them, or create other keys")]
    found = _check_keys(installation, keys)
    if await store.settings.get(SETTING) is None:
        return found
    if not pepper.exists():
        text = f"{pepper} is missing: without it no API key is accepted"
        return [problem(STORE, text, "restore a backup: ai-proxy backup restore FILE"), *found]
    secret = await asyncio.to_thread(load_pepper, installation.data)
    await check_pepper(store.settings, secret, has_keys=True)
    return found


def _check_keys(installation: Installation, keys: Sequence[ApiKey]) -> list[Finding]:
    allowed = security_settings(installation.config).allow_unauthenticated
    host = installation.config.server.host
    return classify_keys(keys, host, installation.now, allow_unauthenticated=allowed)
