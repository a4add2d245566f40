"""API keys as the API and the command line show them."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from ai_proxy.core.keys import ApiKey, Grant, Scope
from ai_proxy.core.limits import Allowance


class KeyState(StrEnum):
    """Whether a key is valid."""

    GOOD = "good"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key as it is shown, without the key itself. Times are in seconds since the epoch.

    Attributes:
        id: Its id in lists, logs and the audit log; not secret.
        label: Its label.
        state: Whether it is valid.
        scopes: What it is for.
        models: Models it may use, as names or patterns; empty for all.
        rpm: Requests per minute; null for the policy's limit, 0 for no limit.
        burst: Requests at once; null for the policy's limit, 0 for a minute's worth.
        tpm: Tokens per minute, of prompts and answers together; null and 0 as for `rpm`.
        concurrency: Concurrent requests; null and 0 as for `rpm`.
        created: When it was created.
        expires: When it stops being valid; null for never.
        revoked: When it was revoked; null if it was not.
        rotated_from: Id of the key it replaced; empty for none.
        last_used: When it was last used, to within seconds; null for never.
    """

    id: str
    label: str
    state: KeyState
    scopes: tuple[Scope, ...]
    models: tuple[str, ...]
    rpm: int | None
    burst: int | None
    tpm: int | None
    concurrency: int | None
    created: float
    expires: float | None
    revoked: float | None
    rotated_from: str
    last_used: float | None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key with its plain text, which is shown only once and not stored.

    Attributes:
        plain: The key itself, to send as `Authorization: Bearer ...`.
        key: Its facts.
    """

    plain: str = field(repr=False)
    key: KeyFacts


def key_state(key: ApiKey, now: float) -> KeyState:
    """Return the state of a key at a time, in seconds since the epoch."""
    if key.revoked is not None:
        return KeyState.REVOKED
    return KeyState.EXPIRED if key.expires is not None and now >= key.expires else KeyState.GOOD


def key_facts(key: ApiKey, now: float) -> KeyFacts:
    """Return a key as it is shown.

    Args:
        key: The key.
        now: Seconds since the epoch.
    """
    allowance = key.grant.allowance
    return KeyFacts(
        id=key.id,
        label=key.grant.label,
        state=key_state(key, now),
        scopes=tuple(sorted(key.grant.scopes)),
        models=tuple(sorted(key.grant.models)),
        rpm=allowance.rpm,
        burst=allowance.burst,
        tpm=allowance.tpm,
        concurrency=allowance.concurrency,
        created=key.created,
        expires=key.expires,
        revoked=key.revoked,
        rotated_from=key.rotated_from,
        last_used=key.last_used,
    )


def limits(allowance: Allowance) -> str:
    """Return limits as text; empty without any.

    >>> limits(Allowance(rpm=60, concurrency=0))
    'rpm 60, concurrency 0'
    """
    return ", ".join(f"{name} {value}" for name, value in asdict(allowance).items() if value is not None)


def described(grant: Grant) -> str:
    """Return a grant as one line of text.

    >>> described(Grant("laptop", models=frozenset({"llama*"}), allowance=Allowance(rpm=60)))
    "'laptop' for inference, of llama*, with rpm 60"
    """
    models = f", of {', '.join(sorted(grant.models))}" if grant.models else ""
    said = limits(grant.allowance)
    return (
        f"{grant.label!r} for {' and '.join(sorted(grant.scopes))}{models}{f', with {said}' if said else ''}"
    )
