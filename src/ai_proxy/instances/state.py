"""The state that an instance keeps: the store, and the keys, policy, settings and audit log in it."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.config.build import engine_settings, retention_settings, store_url
from ai_proxy.config.schema import Config
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.core.errors import InvalidRequestError, StoreDamagedError
from ai_proxy.core.ports import Clock
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.core.store_ports import SETTINGS
from ai_proxy.persistence.database import database_file, file_url, parse_url
from ai_proxy.persistence.failures import explained
from ai_proxy.persistence.file import is_empty
from ai_proxy.persistence.mark import SecuredMark
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.platform.data_folder import claim_data_folder, data_folder
from ai_proxy.platform.tasks import Background
from ai_proxy.security.pepper import FILE_NAME, load_pepper
from ai_proxy.security.security import Security, open_security


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What an instance keeps across restarts.

    Attributes:
        folder: The data directory.
        store: Everything that is kept.
        security: Keys, policy and audit log, in step with the store.
        settings: Those that are changed at run time, in step with the store.
        clock: Tells the time.
    """

    folder: Path
    store: Store
    security: Security
    settings: SettingsHolder
    clock: Clock


@asynccontextmanager
async def open_state(
    config: Config,
    clock: Clock,
    env: Mapping[str, str] = os.environ,
    background: Background | None = None,
) -> AsyncIterator[ProxyState]:
    """Open the state; several proxies and commands may do so at once, and learn of each other's changes.

    Args:
        config: May name a database.
        clock: Tells the time.
        env: May name the data directory.
        background: Runs what keeps the state and the store in step; None for one of its own.

    Raises:
        DataDirError: Others may write to the data directory.
        StoreError: The store cannot be used; the detail gives the reason and what to do.
    """
    folder = data_folder(env)
    with explained(str(folder)):
        claim_data_folder(folder)
    url = store_url(config) or file_url(folder)
    _check_not_emptied(database_file(url, folder), folder / FILE_NAME)
    retention = None if background is None else retention_settings(config)
    async with open_store(url, mark=SecuredMark(folder)) as store:
        settings = SettingsHolder(store.settings, RunSettings(engine_settings(config)))
        await settings.load()
        loads = {SETTINGS: settings.load}
        pepper = load_pepper(folder, may_make=await store.keys.count() == 0)
        async with open_security(store, pepper, clock, loads, background, retention) as security:
            yield ProxyState(folder, store, security, settings, clock)


def _check_not_emptied(database: Path | None, pepper: Path) -> None:
    """Refuse a file that was truncated: its keys would be gone, and the proxy open to everybody.

    Raises:
        StoreDamagedError: The file is empty, though a pepper shows that there was a store.
    """
    if database is not None and database.is_file() and not database.stat().st_size and pepper.exists():
        raise StoreDamagedError(
            f"the store {database} is empty, although it was in use; run 'ai-proxy backup restore', or"
            " 'ai-proxy security accept-loss' to start without its keys"
        )


async def accept_loss(config: Config, env: Mapping[str, str] = os.environ) -> None:
    """Accept that keys and policy were lost with the store: an empty one may be used from then on.

    Args:
        config: May name a database.
        env: May name the data directory.

    Raises:
        InvalidRequestError: The store is not lost.
        StoreError: It cannot be read, so it may hold keys.
    """
    folder = data_folder(env)
    url = store_url(config) or file_url(folder)
    mark, file = SecuredMark(folder), database_file(url, folder)
    emptied = file is not None and file.exists() and is_empty(file)
    if file is not None and is_empty(file):
        secured = False
    else:
        async with open_store(url) as store:
            secured = await store.is_secured()
    if secured or not (mark.is_set or emptied):
        raise InvalidRequestError(
            f"the store {parse_url(url)} is not lost, so nothing was changed; 'ai-proxy check' shows its"
            " condition, and 'ai-proxy api-keys list' its keys"
        )
    with explained(str(folder)):
        if emptied and file is not None:
            file.unlink()
        mark.remove()
