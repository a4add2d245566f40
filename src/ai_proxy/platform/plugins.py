"""Plug-ins: parts that other packages add through entry points."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoints, entry_points

from loguru import logger


@cache
def _installed() -> EntryPoints:
    """Return all entry points; looking through every installed package takes a while."""
    return entry_points()


def with_plugins[T](built_in: Sequence[T], group: str, kind: type[T]) -> Sequence[T]:
    """Return the built-in parts, then those of installed packages; of equal names, the last one counts.

    A plug-in that cannot be loaded is logged and skipped, so that the proxy still serves.

    Args:
        built_in: The parts of the proxy itself.
        group: Group of entry points: `ai_proxy.runtimes`, `ai_proxy.engines`.
        kind: The type of a part.
    """
    added: list[T] = []
    for point in _installed().select(group=group):
        try:
            part = point.load()
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything while it is imported
            logger.opt(exception=error).error("cannot load the plug-in {} ({})", point.name, point.value)
            continue
        if isinstance(part, kind):
            added.append(part)
        else:
            logger.error("the plug-in {} ({}) is not a {}", point.name, point.value, kind.__name__)
    return (*built_in, *added)
