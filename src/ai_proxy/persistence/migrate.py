"""Brings a database up to date: within one transaction, with a copy from before, or not at all.

A step is a pair of SQL scripts in `migrations`, one for each database: `0002.sqlite.sql`. The table
`alembic_version`, which bears the name of the tool that earlier versions used, holds the last step taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from ai_proxy.core.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreMigrationError,
    StoreNewerError,
)
from ai_proxy.persistence.database import Database, Transaction
from ai_proxy.persistence.file import back_up_before, backups_folder


@dataclass(frozen=True, slots=True)
class Migrations:
    """The steps there are.

    Attributes:
        folder: Holds their scripts.
    """

    folder: Path

    @property
    def revisions(self) -> Sequence[str]:
        """The steps, in order."""
        return sorted({file.name.partition(".")[0] for file in self.folder.glob("*.sql")})

    @property
    def head(self) -> str:
        """The last of them."""
        return self.revisions[-1]

    def script(self, revision: str, kind: str) -> str:
        """Return the SQL of a step, for `sqlite` or `postgresql`."""
        return (self.folder / f"{revision}.{kind}.sql").read_text(encoding="utf-8")


MIGRATIONS = Migrations(Path(__file__).parent / "migrations")


async def migrate(database: Database, migrations: Migrations = MIGRATIONS) -> None:
    """Bring a database up to date.

    Args:
        database: Opened without foreign keys: a step may remake a table that others refer to.
        migrations: The steps.

    Raises:
        StoreNewerError: A newer version of this program made it.
        StoreFullError: There is no room for it; the database is as it was.
        StoreMigrationError: A step failed; the database is as it was.
        StoreError: It cannot be read.
    """
    revision = await schema_of(database)
    if revision is not None and revision not in migrations.revisions:
        backups = f", or restore a copy from {backups_folder(path)}" if (path := database.url.path) else ""
        raise StoreNewerError(
            f"the store {database.where} was made by a newer ai-proxy: its schema is {revision}, and this one"
            f" knows those up to {migrations.head}; install the newer one again{backups}"
        )
    copies: list[Path] = []
    try:
        await database.write(lambda transaction: _take_steps(transaction, database, migrations, copies))
    except StoreDamagedError:
        raise
    except StoreFullError:
        for made in copies:  # what is tried again once there is room must not push out older copies
            made.unlink(missing_ok=True)
        raise
    except StoreError as error:
        copy = f"; a copy from before is {copies[0]}" if copies else ""
        reason = error.__cause__ or error
        raise StoreMigrationError(
            f"the store {database.where} could not be brought from schema {revision or 'none'} to"
            f" {migrations.head}, and is as it was{copy}. Reason: {reason}"
        ) from error


async def schema_of(database: Database) -> str | None:
    """Return the revision that a database is at; None for an empty one.

    Raises:
        StoreError: It cannot be read.
    """
    return await database.read(_revision)


def _revision(transaction: Transaction) -> str | None:
    if not transaction.has_table("alembic_version"):
        return None
    revision: str | None = transaction.value("SELECT version_num FROM alembic_version")
    return revision


def _take_steps(
    transaction: Transaction, database: Database, migrations: Migrations, copies: list[Path]
) -> None:
    if database.kind == "postgresql":
        transaction.run("SELECT pg_advisory_xact_lock(7102612)")  # one process at a time
    revision = _revision(transaction)
    if revision == migrations.head:
        return  # another process was faster
    if revision is not None and database.url.path is not None:
        copies.append(back_up_before(database.url.path, migrations.head))
        logger.info("store: copied to {} before its migration", copies[0])
    for step in migrations.revisions:
        if revision is None or step > revision:
            transaction.script(migrations.script(step, database.kind))
    transaction.run("DELETE FROM alembic_version")
    transaction.run("INSERT INTO alembic_version (version_num) VALUES (:head)", head=migrations.head)
    if database.kind == "sqlite" and (broken := transaction.rows("PRAGMA foreign_key_check")):
        raise StoreError(f"a row of the table {broken[0]['table']} refers to one that does not exist")
    logger.info("store: {} is at schema {}, from {}", database.where, migrations.head, revision or "nothing")
