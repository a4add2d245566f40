"""Brings a database up to date: within one transaction, with a copy from before, or not at all."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_proxy.core.errors import StoreDamagedError, StoreError, StoreMigrationError, StoreNewerError
from ai_proxy.persistence.backup import back_up_before, backups_folder
from ai_proxy.persistence.database import Database


@dataclass(frozen=True, slots=True)
class Scripts:
    """The steps there are.

    Attributes:
        folder: Where they lie, as Alembic wants it.
        head: Revision that the last of them leads to.
    """

    folder: Path
    head: str


SCRIPTS = Scripts(Path(__file__).parent / "migrations", "0001")


async def migrate(database: Database, scripts: Scripts = SCRIPTS) -> None:
    """Bring a database up to date; one that is takes a single look.

    Args:
        database: Opened without foreign keys: tables are remade with their references in the air.
        scripts: The steps.

    Raises:
        StoreNewerError: A newer version of this program made it.
        StoreMigrationError: A step failed; the database is as it was.
        StoreError: It cannot be read.
    """
    revision = await schema_of(database)
    if revision == scripts.head:
        return
    _check_known(database, scripts, revision)
    copy: list[Path] = []
    try:
        async with database.writing() as connection:
            await _migrate(connection, database, scripts, copy)
    except StoreDamagedError:
        raise
    except (SQLAlchemyError, StoreError, _StepError) as error:
        raise _failure(database, scripts, revision, copy, error) from error


async def schema_of(database: Database) -> str | None:
    """Return the revision that a database is at; None for an empty one.

    Raises:
        StoreError: It cannot be read.
    """
    async with database.reading() as connection:
        return await _revision(connection)


class _StepError(Exception):
    """A step failed in a way of its own."""


async def _migrate(
    connection: AsyncConnection, database: Database, scripts: Scripts, copy: list[Path]
) -> None:
    if not database.is_sqlite:
        await connection.execute(text("SELECT pg_advisory_xact_lock(7102612)"))
    revision = await _revision(connection)
    if revision == scripts.head:
        return  # Another process was faster.
    if revision is not None and database.path is not None:
        copy.append(await asyncio.to_thread(back_up_before, database.path, scripts.head))
        logger.info("store: copied to {} before its migration", copy[0])
    await connection.run_sync(_upgrade, scripts)
    if database.is_sqlite:
        broken = (await connection.execute(text("PRAGMA foreign_key_check"))).first()
        if broken is not None:
            raise _StepError(f"a reference in the table {broken[0]} leads nowhere")
    logger.info("store: {} is at schema {}, from {}", database.where, scripts.head, revision or "nothing")


async def _revision(connection: AsyncConnection) -> str | None:
    """Return where a database stands; None for an empty one. Alembic is not needed for that, nor imported."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
        return None
    revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _check_known(database: Database, scripts: Scripts, revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(scripts.folder)).walk_revisions()
    if revision is not None and revision not in {step.revision for step in steps}:
        backups = f", or restore a copy from {backups_folder(database.path)}" if database.path else ""
        raise StoreNewerError(
            f"the store {database.where} was made by a newer ai-proxy: its schema is {revision}, and this one"
            f" knows those up to {scripts.head}; install the newer one again{backups}"
        )


def _upgrade(connection: Connection, scripts: Scripts) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts.folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except SQLAlchemyError:
        raise
    except Exception as error:
        raise _StepError(f"{type(error).__name__}: {error}") from error


def _failure(
    database: Database, scripts: Scripts, revision: str | None, copy: list[Path], error: Exception
) -> StoreMigrationError:
    where = f"; a copy from before is {copy[0]}" if copy else ""
    return StoreMigrationError(
        f"the store {database.where} could not be brought from schema {revision or 'none'} to {scripts.head},"
        f" and is as it was{where}. Reason: {error}"
    )
