"""What was acknowledged survives a kill -9 at any moment."""

import asyncio
import sys
from pathlib import Path

from ai_proxy.store.database import file_url
from ai_proxy.store.store import open_store

WRITER = """
import asyncio, sys
from ai_proxy.core.keys import Grant
from ai_proxy.security.keys import KeyRing
from ai_proxy.store.store import open_store
from ai_proxy.testing.clock import FakeClock

async def main():
    async with open_store(sys.argv[1]) as store:
        ring = KeyRing(store.keys, b"p" * 32, FakeClock())
        await ring.load()
        for number in range(1000):
            _, key = await ring.create(Grant("x"))
            print("made", key.id, flush=True)
            if number % 2:
                await ring.revoke(key.id)
                print("revoked", key.id, flush=True)

asyncio.run(main())
"""


async def acknowledged_until_killed(url: str, writes: int) -> list[tuple[str, str]]:
    """Let a process write, kill it after so many writes, and return those that it told of."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    lines = [await writer.stdout.readline() for _ in range(writes)]
    writer.kill()
    rest = await writer.stdout.read()
    await writer.wait()
    told = [
        line.decode().split() for line in (*lines, *rest.splitlines(keepends=True)) if line.endswith(b"\n")
    ]
    return [(what, key_id) for what, key_id in told]


async def test_no_key_and_no_revocation_is_lost_when_killed_in_a_thousand_writes(tmp_path: Path) -> None:
    url = file_url(tmp_path)
    told: list[tuple[str, str]] = []
    for writes in (613, 387):
        told += await acknowledged_until_killed(url, writes)

    async with open_store(url) as store:
        keys = {key.id: key for key in await store.keys.all()}
        assert {key_id for _, key_id in told} <= keys.keys()
        assert all(keys[key_id].revoked is not None for what, key_id in told if what == "revoked")
        assert await store.problems() == []
