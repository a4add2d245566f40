"""The requests to models that ended last, for people who look."""

from collections import deque

from ai_proxy.core.usage import Finished, Inference

MAX_RECENT = 500
"""Finished requests that are remembered; about a kilobyte each."""


class RecentRequests:
    """A ring of finished requests; the oldest go first."""

    def __init__(self, size: int = MAX_RECENT) -> None:
        self._ring: deque[Finished] = deque(maxlen=size)
        self.add = self._ring.extend

    def __repr__(self) -> str:
        return f"<RecentRequests [{len(self._ring)} of {self._ring.maxlen}]>"

    def newest(self) -> list[Inference]:
        """Return them, the last one first."""
        return [request.account() for request in reversed(self._ring)]
