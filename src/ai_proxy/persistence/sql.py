"""What SQLite and PostgreSQL both have, and SQLAlchemy has no common word for."""

from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from ai_proxy.persistence.tables import changes

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

type Row = Mapping[str, Any]
type Merge = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[Any]]


async def upsert(
    connection: AsyncConnection, table: Table, rows: Sequence[Row], merges: Mapping[str, Merge] | None = None
) -> None:
    """Insert rows, or change those that have the same primary key.

    Args:
        connection: In a transaction that writes.
        table: Where to.
        rows: All with the same columns.
        merges: Columns that are made of the old and the new, by name; the others become new.
    """
    insert = _insert(connection, table)
    keys = [column.name for column in table.primary_key]
    changed: dict[str, Any] = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    changed |= {name: merge(table.c[name], insert.excluded[name]) for name, merge in (merges or {}).items()}
    await connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), rows)


async def count_change(connection: AsyncConnection, name: str) -> None:
    """Count a change, in the transaction that makes it."""
    await upsert(connection, changes, [{"name": name, "count": 1}], {"count": add})


def _insert(connection: AsyncConnection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # 2 MiB and 40 ms that a store in SQLite does without

    return postgresql.insert(table)
