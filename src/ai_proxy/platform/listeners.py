"""Publishing to listeners: a listener that raises affects neither the publisher nor other listeners."""

from collections.abc import Callable

from loguru import logger


class Listeners[T]:
    """Calls every listener with each fact, in the order of registration.

    Args:
        subject: What is published, for the log: `service events`.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._listeners: list[Callable[[T], object]] = []

    def __repr__(self) -> str:
        return f"<Listeners [{self._subject}: {len(self._listeners)}]>"

    def add(self, listener: Callable[[T], object]) -> Callable[[], None]:
        """Call `listener` with every fact until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, fact: T) -> None:
        """Inform every listener; one that raises is logged and stays a listener."""
        for listener in tuple(self._listeners):
            try:
                listener(fact)
            except Exception as error:  # noqa: BLE001 - the publisher and other listeners must continue
                logger.opt(exception=error).error("a listener of {} failed", self._subject)
