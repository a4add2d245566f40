from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreDamagedError, StoreError
from ai_proxy.store.backup import KEPT, back_up_before, copy_database, restore_database
from ai_proxy.store.database import file_url
from ai_proxy.store.store import open_store


async def put(folder: Path, value: int) -> None:
    async with open_store(file_url(folder)) as store:
        await store.settings.put("value", value)


async def test_a_copy_made_while_the_store_is_open_holds_all_that_is_kept(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path / "data")) as store:
        await store.settings.put("value", 1)
        copy_database(tmp_path / "data" / "ai-proxy.db", tmp_path / "ai-proxy.db")

    async with open_store(file_url(tmp_path)) as copy:
        assert await copy.settings.get("value") == 1


async def test_a_restored_store_is_as_when_it_was_copied_and_the_other_is_set_aside(tmp_path: Path) -> None:
    file, backup = tmp_path / "data" / "ai-proxy.db", tmp_path / "backup.db"
    await put(file.parent, 1)
    copy_database(file, backup)
    await put(file.parent, 2)

    aside = restore_database(backup, file)

    async with open_store(file_url(file.parent)) as store:
        assert await store.settings.get("value") == 1
    assert aside is not None
    copy_database(aside, tmp_path / "ai-proxy.db")
    async with open_store(file_url(tmp_path)) as store:
        assert await store.settings.get("value") == 2


async def test_a_damaged_store_and_a_lost_one_can_be_restored(tmp_path: Path) -> None:
    file, backup = tmp_path / "data" / "ai-proxy.db", tmp_path / "backup.db"
    await put(file.parent, 1)
    copy_database(file, backup)

    file.write_bytes(b"garbage" * 1000)
    restore_database(backup, file)
    async with open_store(file_url(file.parent)) as store:
        assert await store.settings.get("value") == 1

    file.unlink()
    assert restore_database(backup, file) is None
    async with open_store(file_url(file.parent)) as store:
        assert await store.settings.get("value") == 1


async def test_what_is_no_sound_backup_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    file, backup = tmp_path / "data" / "ai-proxy.db", tmp_path / "backup.db"
    await put(file.parent, 1)
    before = file.read_bytes()
    backup.write_bytes(b"garbage" * 1000)

    for wrong in (backup, tmp_path / "absent.db"):
        with pytest.raises(StoreDamagedError, match="choose another backup"):
            restore_database(wrong, file)

    assert file.read_bytes() == before


def test_a_copy_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)

    with pytest.raises(StoreError):
        copy_database(tmp_path / "garbage.db", tmp_path / "copy.db")

    assert sorted(file.name for file in tmp_path.iterdir()) == ["garbage.db"]


async def test_only_the_last_copies_from_before_migrations_are_kept(tmp_path: Path) -> None:
    await put(tmp_path, 1)

    made = [back_up_before(tmp_path / "ai-proxy.db", "0002") for _ in range(KEPT + 2)]

    assert [file for file in made if file.exists()] == made[2:]
