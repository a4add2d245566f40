"""Whether the store can be opened, is whole, and fits what lies beside it; and how its keys stand."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

from ai_proxy.config.build import security_settings, store_url
from ai_proxy.core.errors import StoreError
from ai_proxy.core.keys import ApiKey
from ai_proxy.doctor.finding import Finding, ok, problem, shorten, warning
from ai_proxy.doctor.installation import Installation
from ai_proxy.persistence.database import Database, database_file, file_url, parse_url
from ai_proxy.persistence.file import database_problems
from ai_proxy.persistence.migrate import MIGRATIONS, schema_of
from ai_proxy.persistence.store import Store
from ai_proxy.security.pepper import FILE_NAME as PEPPER
from ai_proxy.security.pepper import SETTING, check_pepper, load_pepper

STORE, KEYS = "store", "API keys"
PATIENCE = 1.5
"""Seconds for another process that writes, and for looking a database over."""
SOON = 7 * 86400.0
"""Seconds before its end from which on a key's is told."""


def judge_schema(where: str, found: str | None, head: str) -> Finding | None:
    """Return what is to be said of a schema; None when it is this program's."""
    if found == head:
        return None
    if found is None:
        return ok(STORE, f"{where} is empty yet; the first start makes its tables")
    if found > head:
        text = f"{where} was made by a newer ai-proxy: schema {found}, this one knows those up to {head}"
        return problem(STORE, text, "install the newer one again, or restore a backup from before")
    return ok(STORE, f"{where} is at schema {found}; the next start copies it and brings it to {head}")


def judge_failure(error: StoreError) -> Finding:
    """Return why the store cannot be used; the error says what to do itself.

    >>> judge_failure(StoreError("the store x is damaged; restore it")).fix
    'restore it'
    """
    text, _, fix = error.detail.partition("; ")
    return problem(STORE, shorten(text), shorten(fix) or "docs/operations.md says what to do")


def judge_keys(
    keys: Sequence[ApiKey], host: str, now: float, *, allow_unauthenticated: bool
) -> list[Finding]:
    """Return how the keys stand, and whether there should be one.

    Args:
        keys: Every one, those that are over included.
        host: Address the proxy listens on.
        now: Seconds since the epoch.
        allow_unauthenticated: Whether the configuration says that none is needed.
    """
    good = [key for key in keys if key.revoked is None and (key.expires is None or key.expires > now)]
    found = [_expiring(key, now) for key in good if key.expires is not None and key.expires - now < SOON]
    if keys and not good:
        fix = "ai-proxy api-keys create"
        return [warning(KEYS, "all are revoked or expired: nobody gets in but through the socket", fix)]
    if keys:
        return found or [ok(KEYS, f"{len(good)} of {len(keys)} in force")]
    if is_this_machine(host):
        return [ok(KEYS, f"none; only this machine can reach {host}")]
    if allow_unauthenticated:
        fix = "make a key (ai-proxy api-keys create) and remove security.allow_unauthenticated"
        return [warning(KEYS, f"none, and {host} is open to others: whoever reaches it may use it", fix)]
    fix = "make one: ai-proxy api-keys create; or listen on 127.0.0.1"
    return [problem(KEYS, f"none, and {host} is open to others: the proxy refuses to start so", fix)]


def _expiring(key: ApiKey, now: float) -> Finding:
    ends = key.expires or now
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = f"{key.grant.label or key.id} ({key.id}) expires on {day}"
    return warning(KEYS, text, f"ai-proxy api-keys rotate {key.id}, and give the new one to its users")


def is_this_machine(host: str) -> bool:
    """Tell whether only this machine can reach a listener on an address.

    >>> [is_this_machine(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "gpu-box")]
    [True, True, True, False, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def check_store(installation: Installation) -> Sequence[Finding]:
    """Look at the store without changing it: an old one is not brought up to date."""
    url = store_url(installation.config)
    file = database_file(url, installation.data)
    if file is not None and not file.exists():
        return [ok(STORE, f"{file} does not exist yet; the first start makes it"), *_judge(installation, ())]
    parsed = parse_url(url or file_url(installation.data))
    async with Database(parsed, patience=PATIENCE) as database:
        try:
            if said := judge_schema(database.where, await schema_of(database), MIGRATIONS.head):
                return [said]
            return [*await _look_over(database), *await _look_inside(Store(database), installation)]
        except StoreError as error:
            return [judge_failure(error)]


async def _look_over(database: Database) -> Sequence[Finding]:
    """Tell whether all of a database is sound, as far as its file can be looked over here."""
    sound = f"{database.where} is sound, schema {MIGRATIONS.head}"
    if database.url.path is None:
        return [ok(STORE, sound)]
    try:
        problems = await asyncio.to_thread(database_problems, database.url.path, PATIENCE)
    except TimeoutError:
        return [ok(STORE, f"{sound} so far; it is too large to be looked over here")]
    fix = "stop the proxy and run: ai-proxy backup restore FILE"
    return [problem(STORE, shorten(one), fix) for one in problems] or [ok(STORE, sound)]


async def _look_inside(store: Store, installation: Installation) -> Sequence[Finding]:
    keys = await store.keys.all()
    pepper = installation.data / PEPPER
    found = _judge(installation, keys)
    if await store.settings.get(SETTING) is None:
        return found
    if not pepper.exists():
        text, fix = f"{pepper} is missing: without it no API key is known", "ai-proxy backup restore FILE"
        return [problem(STORE, text, f"restore a backup: {fix}"), *found]
    secret = await asyncio.to_thread(load_pepper, installation.data)
    await check_pepper(store.settings, secret, has_keys=True)
    return found


def _judge(installation: Installation, keys: Sequence[ApiKey]) -> list[Finding]:
    allowed = security_settings(installation.config).allow_unauthenticated
    host = installation.config.server.host
    return judge_keys(keys, host, installation.now, allow_unauthenticated=allowed)
