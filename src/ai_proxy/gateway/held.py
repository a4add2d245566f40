"""Bounds the memory for request bodies: one budget for all, and a share of it for each client."""

from ai_proxy.core.errors import OverloadedError
from ai_proxy.core.settings import MB, Limits

RETRY_AFTER = 5.0
"""Seconds after which other requests may have released memory; a guess."""


class HeldBytes:
    """Counts the bytes of request bodies in memory, while they arrive and until their backend answers.

    A single body of the largest size is always allowed.

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
        """Count bytes that are about to be held.

        Args:
            client: Who sent them.
            count: How many.

        Raises:
            OverloadedError: They exceed a limit; none of them is counted.
        """
        own = self._by_client.get(client, 0) + count
        if own > self._each:
            raise OverloadedError(
                f"the bodies of your other requests already take {(own - count) // MB} MB of memory; "
                "try again when those are done, or raise server.limits.max_held_bodies_per_client_mb",
                retry_after=RETRY_AFTER,
            )
        if self.total + count > self._limit:
            raise OverloadedError(
                f"the bodies of other requests already take {self.total // MB} MB of memory; "
                "try again later, or raise server.limits.max_held_bodies_mb",
                retry_after=RETRY_AFTER,
            )
        self._by_client[client] = own
        self.total += count

    def give_back(self, client: str, count: int) -> None:
        """Stop counting bytes that are no longer held."""
        self.total -= count
        own = self._by_client[client] - count
        if own:
            self._by_client[client] = own
        else:
            del self._by_client[client]
