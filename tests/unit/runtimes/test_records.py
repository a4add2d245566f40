import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ai_proxy.runtimes.process.records import Records, make_handle

HANDLE = make_handle("chat/../1", "abc", 4711, 1700000000.25, 8080)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path / "state")
    records.prepare()
    return records


def test_a_handle_comes_back_as_it_was(records: Records) -> None:
    records.save(HANDLE)
    assert records.load() == [HANDLE]


def test_folder_and_file_are_for_the_owner_only(records: Records, tmp_path: Path) -> None:
    records.save(HANDLE)
    (file,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_newer_handle_is_not_removed_with_an_older_one(records: Records) -> None:
    newer = replace(HANDLE, ref="4712")
    records.save(newer)
    records.remove(HANDLE)
    assert records.load() == [newer]
    records.remove(newer)
    assert records.load() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"service_id":"a","pid":"x"}', b"null"])
def test_a_damaged_file_counts_as_absent(records: Records, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state" / "a.json").write_bytes(content)
    assert records.load() == []
