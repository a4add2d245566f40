"""What goes on beside the requests: batches are written, and changes by other instances are noticed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from loguru import logger

from ai_proxy.core.errors import InvalidPolicyError, StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import ChangeCounts

type Step = Callable[[], Awaitable[None]]

WRITE_EVERY = 2.0
"""Seconds between two batches: what a crash can lose of last uses, counts and refusals."""
LOOK_EVERY = 0.5
"""Seconds between two looks: a key revoked by another instance is refused within a second."""


async def write_batches(flushes: Sequence[Step], clock: Clock, writing: asyncio.Lock) -> None:
    """Write what has come together, again and again; what fails is tried with the next batch.

    Args:
        flushes: Write it.
        clock: Tells the time.
        writing: Held during a batch. Who ends this must hold it: a batch cut short would be written twice.
    """
    failing = False
    while True:
        await clock.sleep(WRITE_EVERY)
        async with writing:
            failing = await flush_all(flushes, quiet=failing)


async def flush_all(flushes: Sequence[Step], *, quiet: bool = False) -> bool:
    """Write what has come together; tell whether any of it failed, which is logged unless `quiet`."""
    failing = False
    for flush in flushes:
        try:
            await flush()
        except StoreError as error:
            if not (failing or quiet):
                logger.error("what was counted is not kept for now: {}", error)
            failing = True
    return failing


async def follow_changes(changes: ChangeCounts, loads: Mapping[str, Step], clock: Clock) -> None:
    """Load anew what another instance on the same store has changed; what cannot be read stays as it is.

    Args:
        changes: Counts changes.
        loads: What to do about them, by what changed.
        clock: Tells the time.
    """
    seen: dict[str, int] = {}
    failing = False
    while True:
        try:
            counts = await changes.counts()
            for name in [name for name in loads if counts.get(name, 0) != seen.get(name)]:
                await loads[name]()
                seen[name] = counts.get(name, 0)
            failing = False
        except (StoreError, InvalidPolicyError) as error:
            if not failing:
                logger.error("what is kept stays as it is here, changes elsewhere are not seen: {}", error)
            failing = True
        await clock.sleep(LOOK_EVERY)
