"""Files that nobody but the owner may read."""

import os
import stat
from pathlib import Path

import pytest

from ai_proxy.tls.files import locked, make_private_folder, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "tls" / "acme" / "key.pem", b"secret")
    finally:
        os.umask(before)

    assert mode(tmp_path / "tls" / "acme" / "key.pem") == 0o600
    assert mode(tmp_path / "tls" / "acme") == mode(tmp_path / "tls") == 0o700


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    make_private_folder(tmp_path)

    assert mode(tmp_path) == 0o700


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()  # nothing can be put in its place

    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "key.pem", b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    with locked(tmp_path / "tls"):
        pass
    with locked(tmp_path / "tls"):
        assert mode(tmp_path / "tls" / "lock") == 0o600
