import sqlite3

import pytest

from ai_proxy.core.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from ai_proxy.persistence.failures import explain, explained


class SqliteError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("what SQLite says")
        self.sqlite_errorcode = code


class PostgresError(Exception):
    def __init__(self, state: str | None, text: str = "what PostgreSQL says") -> None:
        super().__init__(text)
        self.sqlstate = state


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (SqliteError(sqlite3.SQLITE_FULL), StoreFullError),
        (SqliteError(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreUnavailableError),
        (SqliteError(sqlite3.SQLITE_READONLY_DBMOVED), StoreReadOnlyError),
        (SqliteError(sqlite3.SQLITE_CANTOPEN), StoreReadOnlyError),
        (SqliteError(sqlite3.SQLITE_CORRUPT_INDEX), StoreDamagedError),
        (SqliteError(sqlite3.SQLITE_NOTADB), StoreDamagedError),
        (SqliteError(sqlite3.SQLITE_IOERR), StoreError),
        (PostgresError("53100"), StoreFullError),
        (PostgresError("25006"), StoreReadOnlyError),
        (PostgresError("57P01"), StoreUnavailableError),
        (PostgresError("28P01"), StoreUnavailableError),
        (PostgresError("23505"), StoreError),
        (PostgresError(None), StoreUnavailableError),
        (ConnectionRefusedError("refused"), StoreUnavailableError),
    ],
)
def test_what_a_database_says_is_told_by_its_kind_with_where_and_why(
    cause: Exception, kind: type[StoreError]
) -> None:
    error = explain("/srv/ai-proxy.db", cause)

    assert type(error) is kind
    assert "/srv/ai-proxy.db" in error.detail
    assert str(cause) in error.detail


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), explained("here"):
        _ = 1 / 0


def test_the_values_are_not_told() -> None:
    error = explain(
        "here", PostgresError("23505", "duplicate key\nDETAIL:  Key (digest)=(secret) already exists.")
    )

    assert "duplicate key" in error.detail
    assert "secret" not in error.detail
