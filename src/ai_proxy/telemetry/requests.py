"""The requests to models that ended last, for people who look."""

from collections import deque

from ai_proxy.core.usage import RequestRecord

MAX_RECENT = 500
"""Finished requests that are remembered; about a kilobyte each."""


class RecentRequests:
    """A ring of finished requests; the oldest go first."""

    def __init__(self, size: int = MAX_RECENT) -> None:
        self._ring: deque[RequestRecord] = deque(maxlen=size)
        self.add = self._ring.extend

    def __repr__(self) -> str:
        return f"<RecentRequests [{len(self._ring)} of {self._ring.maxlen}]>"

    def newest(self) -> list[RequestRecord]:
        """Return them, the last one first."""
        return list(reversed(self._ring))
