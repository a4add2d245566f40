import asyncio
import json
import stat
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Keeper, running

from ai_proxy.cli.audit import as_text
from ai_proxy.core.store_ports import AuditEntry

JSON = ("--format", "json")


@pytest.fixture
def filled(keeper: Keeper) -> Keeper:
    """An audit log with three entries."""
    for value in ("1m", "2m", "3m"):
        keeper("config", "set", "engine.cache_ttl", value)
    return keeper


def test_an_empty_log_is_told(keeper: Keeper) -> None:
    assert keeper("audit").out == "the audit log is empty\n"
    assert keeper("audit", *JSON).data == []


def test_the_last_entries_are_shown_oldest_first(filled: Keeper) -> None:
    assert [one["detail"] for one in filled("audit", "--limit", "2", *JSON).data] == ["2m", "3m"]
    lines = filled("audit").out.splitlines()
    assert [line.split()[2:] for line in lines] == [
        ["owner", "local", "settings.put", "engine.cache_ttl", "ok", detail] for detail in ("1m", "2m", "3m")
    ]


def test_what_is_older_is_left_out(filled: Keeper) -> None:
    assert len(filled("audit", "--since", "1h", *JSON).data) == 3
    assert filled("audit", "--since", "1ms", *JSON).data == []


@pytest.mark.parametrize("since", ["yesterday", "0", "-1h"])
def test_an_age_that_is_none_is_the_users_error(keeper: Keeper, since: str) -> None:
    assert keeper("audit", f"--since={since}", *JSON).error["code"] == "usage"


def test_the_log_is_exported_as_lines_for_the_owner_only(filled: Keeper, tmp_path: Path) -> None:
    file = tmp_path / "audit.ndjson"

    ran = filled("audit", "--export", str(file))

    assert (ran.code, ran.err) == (0, "wrote 3 entries\n")
    assert [json.loads(line)["seq"] for line in file.read_text().splitlines()] == [1, 2, 3]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert filled("audit", "--export", "-").out == file.read_text()


def test_an_export_overwrites_nothing(filled: Keeper, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")

    ran = filled("audit", "--export", str(file), *JSON)

    assert (ran.code, ran.error["code"], file.read_text()) == (1, "file_exists", "precious")


def test_an_export_that_cannot_be_written_is_the_users_error(filled: Keeper, tmp_path: Path) -> None:
    ran = filled("audit", "--export", str(tmp_path / "nowhere" / "file"), *JSON)

    assert (ran.code, ran.error["code"]) == (1, "not_writable")


async def test_new_entries_are_followed(keeper: Keeper) -> None:
    await asyncio.to_thread(keeper, "config", "set", "engine.cache_ttl", "1m")
    async with running("audit", "--follow", *JSON) as follower, asyncio.timeout(30):
        first = json.loads(await follower.stdout.readline())
        await asyncio.to_thread(keeper, "config", "unset", "engine.cache_ttl")
        second = json.loads(await follower.stdout.readline())

    assert [first["what"], second["what"]] == [
        "settings.put engine.cache_ttl",
        "settings.drop engine.cache_ttl",
    ]


def test_a_line_is_one_line_whatever_the_entry_says() -> None:
    entry = AuditEntry(0.0, "anonymous", "GET /", "192.0.2.7", "forbidden", "one\ntwo", count=3)

    assert as_text(entry).endswith("anonymous     192.0.2.7        GET / (x3)  forbidden  one two")
