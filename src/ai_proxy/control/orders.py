"""What people and the scheduler want of a service, noted until its supervisor carries it out."""

import asyncio
from enum import IntEnum

from ai_proxy.control.instance import Assignment


class Ending(IntEnum):
    """How urgently a running service is to end."""

    NONE = 0
    DRAIN = 1
    NOW = 2


class Orders:
    """The open orders for one service.

    Attributes:
        news: Set whenever there may be something new to look at.
        start: A start is wanted.
        resume: A service about to stop for want of use is wanted again.
        ending: How urgently it is to end.
        reason: Why it is to end, in words.
        retired: It is to end for good.
        next: The declaration to take on once the old instance is gone.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.start = False
        self.resume = False
        self.ending = Ending.NONE
        self.reason = ""
        self.retired = False
        self.next: Assignment | None = None

    def __repr__(self) -> str:
        return f"<Orders [start: {self.start}, ending: {self.ending.name.lower()}]>"

    def end(self, ending: Ending, reason: str) -> None:
        """Note that it is to end; a less urgent order does not replace a more urgent one."""
        if ending >= self.ending:
            self.ending = ending
            self.reason = reason
        self.news.set()
