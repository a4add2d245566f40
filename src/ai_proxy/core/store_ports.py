"""What the program keeps across restarts, as ports that the store implements.

Moments are seconds since the epoch. Every method may raise StoreError, whose detail says what to do.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ai_proxy.core.keys import ApiKey
from ai_proxy.core.ports import Clock

KEYS, POLICY, SETTINGS = "keys", "policy", "settings"
"""Whose changes are counted, so that other instances on the same store notice them."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A proxy that runs, as it announces itself to others.

    Attributes:
        id: Names it.
        machine: On which it runs: several may share a store.
        pid: Of its process.
        started: When that process began, in seconds since the epoch.
        host: Address it listens on.
        port: Port it listens on.
        mode: How it serves: `local-http`, `dev-selfsigned`, `https-acme`.
        endpoints: Where people reach it, as URLs.
        last_error: The last error; empty for none.
        birth: Distinguishes that process from others with the same pid, independently of the system clock;
            empty in entries of earlier versions.
        stop_within: Seconds that it may take to end after a stop; 0 in entries of earlier versions.
    """

    id: str
    machine: str
    pid: int
    started: float
    host: str
    port: int
    mode: str
    endpoints: tuple[str, ...] = ()
    last_error: str = ""
    birth: str = ""
    stop_within: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """A policy that was set, as a document.

    Attributes:
        number: Counts them from 1; the highest is in force.
        at: When it was set.
        who: Who set it: a key's id, or `owner`.
        document: As `core.policy_document` reads it.
    """

    number: int
    at: float
    who: str
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log: an action, or a refused request.

    Attributes:
        at: When.
        who: A key's id, `owner`, or `anonymous`.
        what: The action: `key.create`, `service.stop llama3`, `GET /v1/models`.
        where_from: The client's address; `local` for the owner's socket.
        result: `ok`, or the code of the error.
        detail: Details; empty for none.
        count: Of equal refusals in this entry.
        seq: Its place in the log, from 1; 0 before it is written.
        refused: Whether it is a refused request, and no action.
    """

    at: float
    who: str
    what: str
    where_from: str
    result: str
    detail: str = ""
    count: int = 1
    seq: int = 0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a model with a key on a day.

    Attributes:
        key_id: The key; empty for requests without one.
        model: As the client named it.
        day: ISO date, in UTC.
        requests: How many.
        tokens_in: Of prompts.
        tokens_out: Of answers.
    """

    key_id: str
    model: str
    day: str
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class SettingStore(Protocol):
    """Settings changed at run time; values are any that JSON can hold."""

    async def all(self) -> Mapping[str, object]:
        """Return every setting that was made and can be read."""

    async def get(self, name: str) -> object | None:
        """Return a setting; None when it was not made."""

    async def put(self, name: str, value: object) -> None:
        """Make a setting."""

    async def drop(self, name: str) -> None:
        """Remove a setting: the configuration holds again."""


class InstanceStore(Protocol):
    """Proxies that run."""

    async def all(self) -> Sequence[Instance]:
        """Return every instance that can be read, by port."""

    async def put(self, instance: Instance) -> None:
        """Keep an instance, in place of the one with its id."""

    async def drop(self, instance_id: str) -> None:
        """Forget an instance."""


class KeyStore(Protocol):
    """API keys; none is ever deleted, so that the audit log's ids keep their meaning."""

    async def all(self) -> Sequence[ApiKey]:
        """Return every key that can be read, oldest first."""

    async def count(self) -> int:
        """Return how many keys there are, those that cannot be read among them."""

    async def add(self, key: ApiKey) -> None:
        """Keep a new key; on return it is on disk."""

    async def revoke(self, key_id: str, at: float) -> None:
        """Revoke a key, unless it is; on return that is on disk."""

    async def rotate(self, old: ApiKey, fresh: ApiKey) -> None:
        """Keep a new key and the end of the one it replaces, both or neither."""

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Note when keys were last used; never goes back in time."""


class PolicyStore(Protocol):
    """Every policy that was ever set."""

    async def current(self) -> PolicyRevision | None:
        """Return the one in force; None before the first.

        Raises:
            InvalidPolicyError: It cannot be read.
        """

    async def history(self, limit: int = 100) -> Sequence[PolicyRevision]:
        """Return the last ones, newest first."""

    async def put(self, at: float, who: str, document: Mapping[str, object]) -> PolicyRevision:
        """Put one in force."""


class AuditStore(Protocol):
    """The audit log: entries are only added, and removed when they exceed the retention."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries, all or none; on return they are on disk."""

    async def page(
        self, after: int = 0, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the entries that follow one, oldest first.

        Args:
            after: Its `seq`; 0 for the beginning.
            limit: How many at most.
            since: Leaves out what is older.
            until: Leaves out what is as old or younger.
        """

    async def newest(
        self, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the last entries, oldest first; the arguments are those of `page`."""

    async def last_seq(self) -> int:
        """Return the place of the last entry; 0 when there is none."""

    async def trim(self, before: float, most: int, limit: int, *, refused: bool) -> int:
        """Remove the oldest entries of one kind; return how many.

        Args:
            before: Remove entries from before this time, up to the first that is younger.
            most: Remove the oldest beyond this number. The kinds are counted apart, so that a flood of
                refusals displaces no action.
            limit: Remove at most this many.
            refused: Whether to remove refused requests, or else actions.
        """


class UsageStore(Protocol):
    """Counts of requests and tokens."""

    async def add(self, usage: Sequence[Usage]) -> None:
        """Add to what is counted already, all or nothing."""

    async def totals(self, since_day: str = "", key_id: str | None = None) -> Sequence[Usage]:
        """Return the counts from a day on, by day, key and model.

        Args:
            since_day: ISO date; empty for all.
            key_id: Of one key only; None for all.
        """

    async def trim(self, since_day: str, most: int) -> None:
        """Remove the counts from before a day, and the oldest beyond a number of rows."""


class ChangeFeed(Protocol):
    """How often KEYS, POLICY and SETTINGS have changed, whatever program changed them."""

    def watch(self, clock: Clock) -> AsyncGenerator[Mapping[str, int]]:
        """Yield the counts, by name: at once, and whenever they may have risen.

        Raises:
            StoreError: They cannot be read.
        """
