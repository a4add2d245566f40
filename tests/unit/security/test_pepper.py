from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreDamagedError, StoreReadOnlyError
from ai_proxy.core.keys import PEPPER_BYTES
from ai_proxy.persistence.store import Store
from ai_proxy.security.pepper import check_pepper, load_pepper


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
def test_a_pepper_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    pepper = load_pepper(tmp_path / "data")

    assert len(pepper) == PEPPER_BYTES
    assert load_pepper(tmp_path / "data") == pepper
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["pepper"]
    assert (tmp_path / "data" / "pepper").stat().st_mode & 0o777 == 0o600


def test_two_installations_have_different_ones(tmp_path: Path) -> None:
    assert load_pepper(tmp_path / "a") != load_pepper(tmp_path / "b")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff", b"00" * 31])
def test_a_file_that_holds_something_else_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pepper").write_bytes(content)

    with pytest.raises(StoreDamagedError, match="restore it from a backup"):
        load_pepper(tmp_path)

    assert (tmp_path / "pepper").read_bytes() == content


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(StoreReadOnlyError, match="AI_PROXY_DATA_DIR"):
        load_pepper(tmp_path / "data")


async def test_another_pepper_than_that_of_the_keys_is_noticed(store: Store) -> None:
    await check_pepper(store.settings, b"a" * PEPPER_BYTES, has_keys=False)
    await check_pepper(store.settings, b"a" * PEPPER_BYTES, has_keys=True)
    with pytest.raises(StoreDamagedError, match="put that one back"):
        await check_pepper(store.settings, b"b" * PEPPER_BYTES, has_keys=True)


async def test_a_new_pepper_is_taken_where_there_are_no_keys(store: Store) -> None:
    await check_pepper(store.settings, b"a" * PEPPER_BYTES, has_keys=False)
    await check_pepper(store.settings, b"b" * PEPPER_BYTES, has_keys=False)
    await check_pepper(store.settings, b"b" * PEPPER_BYTES, has_keys=True)
