"""What is wanted of a service, noted until its supervisor carries it out."""

import asyncio
from enum import IntEnum

from ai_proxy.control.instance import Assignment
from ai_proxy.core.scheduling import Ask


class Ending(IntEnum):
    """How urgently a running service is to end."""

    NONE = 0
    DRAIN = 1
    NOW = 2


class Intent:
    """What is wanted of one service.

    Attributes:
        news: Set whenever there may be something new to look at.
        start: Who asks for a start; None when nobody does.
        ending: How urgently it is to end.
        reason: Why it is to end, in words.
        retired: It is to end for good.
        next: The declaration to take on once nothing of the old one runs.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.start: Ask | None = None
        self.ending = Ending.NONE
        self.reason = ""
        self.retired = False
        self.next: Assignment | None = None

    def __repr__(self) -> str:
        return f"<Intent [start: {self.start is not None}, ending: {self.ending.name.lower()}]>"

    def end(self, ending: Ending, reason: str) -> None:
        """Note that it is to end; a less urgent end does not replace a more urgent one."""
        if ending >= self.ending:
            self.ending = ending
            self.reason = reason
        self.news.set()
