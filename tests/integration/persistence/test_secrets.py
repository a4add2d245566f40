"""What is kept is for the owner only, and no key is in it."""

import os
from pathlib import Path

import pytest

from ai_proxy.core.keys import Grant
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.file import copy_database
from ai_proxy.persistence.store import open_store
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import open_security
from ai_proxy.testing.fakes import FakeClock


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
async def test_no_file_holds_a_key_or_can_be_read_by_others(tmp_path: Path) -> None:
    folder, clock = tmp_path / "data", FakeClock()
    before = os.umask(0)
    try:
        pepper = load_pepper(folder)
        async with open_store(file_url(folder)) as store, open_security(store, pepper, clock) as security:
            first, key = await security.keys.create(Grant("laptop"))
            second, _ = await security.keys.rotate(key.id, overlap=60)
            security.keys.verify(second.text.encode(), clock.wall())
            await security.keys.revoke(key.id)
            await security.audit.record("owner", "key.create", "local", detail=f"made {first.text}")
            security.audit.refuse("anonymous", f"GET /v1/models/{second.text}", "10.0.0.1", "invalid_api_key")
            await security.audit.flush()
            copy_database(folder / "ai-proxy.db", folder / "copy.db")
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    finally:
        os.umask(before)

    assert files.keys() >= {"ai-proxy.db", "ai-proxy.db-wal", "pepper", "copy.db"}
    assert len(files["ai-proxy.db-wal"]) > 10_000
    for plain in (first.text, second.text):
        for secret in (plain.encode(), plain[17:60].encode(), plain[30:50].encode()):
            assert not [name for name, content in files.items() if secret in content]
    assert any(key.id.encode() in content for content in files.values())
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
