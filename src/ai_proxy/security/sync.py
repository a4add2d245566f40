"""Keeps memory and the store in step: writes batches, and loads changes by other processes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from loguru import logger

from ai_proxy.core.errors import InvalidPolicyError, StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import ChangeFeed

type Step = Callable[[], Awaitable[None]]

RETRY_AFTER = 0.5
"""Seconds until a store that failed is read again."""
WRITE_EVERY = 2.0
"""Seconds between two batches: what a crash can lose of last uses, counts and refusals."""


async def write_batches(
    pending: asyncio.Event, flushes: Sequence[Step], clock: Clock, writing: asyncio.Lock
) -> None:
    """Write batches until cancelled; a part that fails is tried again with the next batch.

    Args:
        pending: Set when there is something to write. An idle proxy has nothing, and does not wake up.
        flushes: Write the parts of a batch.
        clock: Tells the time.
        writing: Held during a batch. Hold it to end this: a batch cut short would be written twice.
    """
    failing = False
    while True:
        await pending.wait()
        await clock.sleep(WRITE_EVERY)
        async with writing:
            pending.clear()
            failing = await flush_all(flushes, quiet=failing)
            if failing:
                pending.set()


async def flush_all(flushes: Sequence[Step], *, quiet: bool = False) -> bool:
    """Write a batch; return whether a part of it failed, which is logged unless `quiet`."""
    failing = False
    for flush in flushes:
        try:
            await flush()
        except StoreError as error:
            if not (failing or quiet):
                logger.error(
                    "cannot write last uses, counts and refusals, and keep them in memory: {}", error
                )
            failing = True
    return failing


async def follow_changes(changes: ChangeFeed, loads: Mapping[str, Step], clock: Clock) -> None:
    """Load what other processes change in the store, until cancelled.

    A failure is logged once; what was loaded before holds until another attempt succeeds.

    Args:
        changes: Counts changes.
        loads: Load the facts whose count has risen, by name.
        clock: Tells the time.
    """
    loaded: dict[str, int] = {}
    failing: set[str] = set()
    while True:
        try:
            async with aclosing(changes.watch(clock)) as counted:
                async for counts in counted:
                    failing.discard("")
                    await _load_changed(counts, loads, loaded, failing)
                    if failing:
                        break
        except StoreError as error:
            _log_once("", error, failing)
        await clock.sleep(RETRY_AFTER)


async def _load_changed(
    counts: Mapping[str, int], loads: Mapping[str, Step], loaded: dict[str, int], failing: set[str]
) -> None:
    for name, load in loads.items():
        count = counts.get(name, 0)
        if loaded.get(name) == count:
            continue
        try:
            await load()
        except (StoreError, InvalidPolicyError) as error:
            _log_once(name, error, failing)
        else:
            loaded[name] = count
            failing.discard(name)


def _log_once(name: str, error: Exception, failing: set[str]) -> None:
    if name not in failing:
        what = f"changes of the {name}" if name else "changes"
        logger.error("cannot load {} by other processes; what was loaded last holds: {}", what, error)
        failing.add(name)
