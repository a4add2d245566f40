"""Parts that other packages add by entry points."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from loguru import logger


def with_plugins[T](built_in: Sequence[T], group: str, kind: type[T]) -> Sequence[T]:
    """Return the built-in parts and those that installed packages add; what comes later takes a name over.

    A plug-in that cannot be loaded is logged and left out: it must not keep the proxy from serving.

    Args:
        built_in: Those of the proxy itself.
        group: The group of entry points: `ai_proxy.runtimes`, `ai_proxy.engines`.
        kind: What an entry point must name an instance of.
    """
    added: list[T] = []
    for point in entry_points(group=group):
        try:
            part = point.load()
        except Exception as error:  # noqa: BLE001 - the code of others may raise anything while it is imported
            logger.opt(exception=error).error("cannot load the plug-in {} ({})", point.name, point.value)
            continue
        if isinstance(part, kind):
            added.append(part)
        else:
            logger.error("the plug-in {} ({}) is no {}", point.name, point.value, kind.__name__)
    return (*built_in, *added)
