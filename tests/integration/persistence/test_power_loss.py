"""What was acknowledged survives a kill -9 at any moment."""

import asyncio
import sys
from pathlib import Path

import pytest

from ai_proxy.config.schema import Config
from ai_proxy.core.errors import InvalidKeyError
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.platform.clock import SystemClock

WRITER = """
import asyncio, os
from ai_proxy.config.schema import Config
from ai_proxy.platform.clock import SystemClock
from ai_proxy.core.keys import Grant
from ai_proxy.instances.state import open_state

async def main():
    async with open_state(Config(), SystemClock()) as state:
        for number in range(1000):
            plain, key = await state.security.keys.create(Grant("x"))
            print("made", plain.text, flush=True)
            if number % 2:
                await state.security.keys.revoke(key.id)
                print("revoked", plain.text, flush=True)
            await state.security.audit.record("owner", "key.create", "local", detail=key.id)
            print("recorded", key.id, flush=True)

asyncio.run(main())
"""


async def acknowledged_until_killed(data: Path, writes: int) -> list[tuple[str, str]]:
    """Let a process write, kill it after so many writes, and return those that it told of."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"AI_PROXY_DATA_DIR": str(data)},
    )
    assert writer.stdout is not None
    try:
        lines = [await writer.stdout.readline() for _ in range(writes)]
    finally:
        writer.kill()
        rest = await writer.stdout.read()
        await writer.wait()
    told = [
        line.decode().split() for line in (*lines, *rest.splitlines(keepends=True)) if line.endswith(b"\n")
    ]
    return [(what, key_id) for what, key_id in told]


def is_good(state: ProxyState, plain: str) -> bool:
    try:
        state.security.keys.verify(plain.encode(), SystemClock().wall())
    except InvalidKeyError:
        return False
    return True


async def recorded(state: ProxyState) -> set[str]:
    return {entry.detail for entry in await state.store.audit.page(limit=10_000)}


@pytest.mark.threat("an operator's mistake", "a lost key or revocation")
async def test_no_key_revocation_or_audit_is_lost_when_killed_in_a_thousand_writes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    told: list[tuple[str, str]] = []
    for writes in (613, 387):
        told += await acknowledged_until_killed(data, writes)

    made = {plain for what, plain in told if what == "made"}
    revoked = {plain for what, plain in told if what == "revoked"}
    async with open_state(Config(), SystemClock(), {"AI_PROXY_DATA_DIR": str(data)}) as state:
        known = {plain for plain in made if state.security.keys.find(plain.encode())}
        good = {plain for plain in made if is_good(state, plain)}
        assert known == made
        assert not good & revoked
        # The last key of each run may have been revoked without a word of it.
        assert len(made - revoked - good) <= 2
        assert {detail for what, detail in told if what == "recorded"} <= await recorded(state)
        assert await state.store.problems() == []
