"""Every policy that was ever set."""

from collections.abc import Callable, Mapping, Sequence

from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.store_ports import PolicyRevision
from ai_proxy.persistence.database import Database, Row, Transaction
from ai_proxy.persistence.rows import UNREADABLE, decode, encode, fact, skip


class Policies:
    """Implements `core.store_ports.PolicyStore`.

    Args:
        database: Holds them.
        secured: Remembers that there is one; called before each is kept, on the database's thread.
    """

    def __init__(self, database: Database, secured: Callable[[], None]) -> None:
        self._database = database
        self._secured = secured

    async def current(self) -> PolicyRevision | None:
        """Return the one in force; None before the first.

        Raises:
            InvalidPolicyError: It cannot be read; the one before it may allow more, and does not hold again.
        """
        for row in await self._newest(1):
            try:
                return _revision(row)
            except UNREADABLE as error:
                raise InvalidPolicyError(
                    f"revision {row['number']} of the policy in the store cannot be read ({error});"
                    " set the policy again with 'ai-proxy security policy set'"
                ) from error
        return None

    async def history(self, limit: int = 100) -> Sequence[PolicyRevision]:
        """Return the last ones that can be read, newest first."""
        found = []
        for row in await self._newest(limit):
            try:
                found.append(_revision(row))
            except UNREADABLE as error:
                skip(f"revision {row['number']} of the policy", error, "the history leaves it out")
        return found

    async def put(self, at: float, who: str, document: Mapping[str, object]) -> PolicyRevision:
        """Put one in force."""

        def add(tx: Transaction) -> PolicyRevision:
            self._secured()
            tx.lock("policy")  # so that no other process takes the number
            last = tx.value("SELECT max(number) AS last FROM policy")
            revision = PolicyRevision((last or 0) + 1, at, who, document)
            tx.run(
                "INSERT INTO policy (number, at, who, document) VALUES (:number, :at, :who, :document)",
                number=revision.number,
                at=at,
                who=who,
                document=encode(document),
            )
            return revision

        return await self._database.write(add)

    async def _newest(self, limit: int) -> Sequence[Row]:
        newest = "SELECT * FROM policy ORDER BY number DESC LIMIT :limit"
        return await self._database.read(lambda tx: tx.rows(newest, limit=limit))


def _revision(row: Row) -> PolicyRevision:
    return fact(PolicyRevision, {**row, "document": decode(row["document"])})
