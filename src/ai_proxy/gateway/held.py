"""The memory for what is held of requests: one budget, and a share of it for each client."""

from ai_proxy.core.errors import OverloadedError
from ai_proxy.core.settings import MB, Limits

RETRY_AFTER = 5.0
"""Seconds after which what others hold may have been given back; a guess."""


class HeldBytes:
    """Counts the bytes of requests that are in memory: that arrive, wait for a start, or for an answer.

    A body of the largest size fits whatever the limits say.

    Attributes:
        total: Bytes held for all clients together.

    Args:
        limits: What may be held.
    """

    __slots__ = ("_by_client", "_each", "_limit", "total")

    def __init__(self, limits: Limits) -> None:
        self.total = 0
        self._limit = max(limits.max_held_bodies, limits.max_json_body)
        self._each = max(limits.max_held_bodies_per_client, limits.max_json_body)
        self._by_client: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<HeldBytes [{self.total} of {self._limit}, {len(self._by_client)} clients]>"

    def take(self, client: str, count: int) -> None:
        """Count bytes that are to be held.

        Args:
            client: Whose they are.
            count: How many come to those that are held.

        Raises:
            OverloadedError: They are too many; nothing is counted.
        """
        own = self._by_client.get(client, 0) + count
        if own > self._each:
            raise OverloadedError(
                f"your other requests already hold {(own - count) // MB} MB of memory; "
                "server.limits.max_held_bodies_per_client_mb allows no more",
                retry_after=RETRY_AFTER,
            )
        if self.total + count > self._limit:
            raise OverloadedError(
                f"requests already hold {self.total // MB} MB of memory; "
                "server.limits.max_held_bodies_mb allows no more",
                retry_after=RETRY_AFTER,
            )
        self._by_client[client] = own
        self.total += count

    def give_back(self, client: str, count: int) -> None:
        """Count bytes that are held no longer."""
        self.total -= count
        own = self._by_client[client] - count
        if own:
            self._by_client[client] = own
        else:
            del self._by_client[client]
