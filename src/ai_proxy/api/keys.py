"""API keys: creating, listing, revoking and rotating them, and their usage."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ai_proxy.api.deps import Principal, TheAuditEvent, TheState
from ai_proxy.api.errors import Problem
from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.core.key_facts import KeyFacts, MadeKey, described, key_facts
from ai_proxy.core.keys import MAX_LABEL, Grant, Scope, redacted
from ai_proxy.core.limits import MAX_LIMIT, Allowance
from ai_proxy.core.store_ports import Usage

OVERLAP = 3600.0
"""Seconds for which a rotated key stays valid by default."""
LONGEST = 100 * 366 * 86_400
"""Longest validity of a key, in seconds."""

STORE_UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "The store is unavailable; `detail` says why."}
}
NO_KEY: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No API key has this id."}}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not UTF-8 text, or its values contradict each other."}
}
KeyId = Annotated[str, AfterValidator(redacted), Path(description="The key's id.", examples=["0123456789ab"])]
Limit = Annotated[int | None, Field(ge=0, le=MAX_LIMIT)]


class NewKey(BaseModel):
    """Properties of a new key. The policy decides a limit that is omitted; 0 means no limit."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=MAX_LABEL, description="A name for people.")
    scopes: set[Scope] = Field(
        {Scope.INFERENCE}, min_length=1, description="`inference`: using models; `admin`: management."
    )
    models: set[str] = Field(
        set(),
        description="Names or patterns, such as `llama*`, of the models that it may use; empty for all.",
    )
    expires_in: float | None = Field(
        None, gt=0, le=LONGEST, description="Seconds until it expires; never when omitted."
    )
    expires_at: float | None = Field(
        None,
        ge=0,
        le=1e11,
        description="When it expires, in seconds since the epoch; instead of `expires_in`.",
    )
    rpm: Limit = Field(None, description="Requests per minute.")
    burst: Limit = Field(None, description="Size of a burst, in requests; 0 for those of a minute.")
    tpm: Limit = Field(None, description="Tokens per minute, prompts and answers together.")
    concurrency: Limit = Field(None, description="Requests in flight.")

    def grant(self) -> Grant:
        """Return the rights and limits of the key."""
        allowance = Allowance(self.rpm, self.burst, self.tpm, self.concurrency)
        return Grant(self.label, frozenset(self.scopes), frozenset(self.models), allowance)

    def expires(self, now: float) -> float | None:
        """Return when the key expires, in seconds since the epoch; None for never.

        Raises:
            InvalidRequestError: Both times are given, or one in the past.
        """
        if self.expires_in is not None and self.expires_at is not None:
            raise InvalidRequestError("give expires_in or expires_at, not both", "expires_at")
        if self.expires_at is not None and self.expires_at <= now:
            raise InvalidRequestError(
                "expires_at is in the past; give a later time, or expires_in", "expires_at"
            )
        return self.expires_at if self.expires_in is None else now + self.expires_in


class KeyList(BaseModel):
    """All API keys."""

    keys: list[KeyFacts] = Field(description="Oldest first, including revoked and expired ones.")


class UsageTotals(BaseModel):
    """Usage of models."""

    usage: list[Usage] = Field(description="By day, key and model.")
    requests: int = Field(description="Sum of the requests.")
    tokens_in: int = Field(description="Sum of the prompts' tokens.")
    tokens_out: int = Field(description="Sum of the answers' tokens.")


router = APIRouter(prefix="/api/v1", tags=["keys"], responses=STORE_UNAVAILABLE)
Since = Annotated[
    str,
    Query(
        pattern=r"^(\d{4}-\d\d-\d\d)?$",
        description="First day, in UTC; empty for all.",
        examples=["2026-01-31"],
    ),
]


@router.get("/keys", summary="List the API keys")
async def list_keys(state: TheState) -> KeyList:
    """Every key with its limits and last use. The key itself is not stored: only its holder knows it."""
    now = state.clock.wall()
    return KeyList(keys=[key_facts(key, now) for key in state.security.keys.all()])


@router.post("/keys", summary="Create an API key", status_code=201, responses=REFUSED)
async def create_key(
    wanted: NewKey, state: TheState, principal: Principal, audit_event: TheAuditEvent, response: Response
) -> MadeKey:
    """Create a key. Only this answer contains it.

    The first key turns authentication on: from then on every request needs a key.
    """
    now = state.clock.wall()
    plain, key = await state.security.keys.create(wanted.grant(), wanted.expires(now))
    logger.info("API key {} created by {}", key.id, principal)
    audit_event.target, audit_event.detail = key.id, described(key.grant)
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(plain.text, key_facts(key, now))


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses=NO_KEY)
async def revoke_key(key_id: KeyId, state: TheState, principal: Principal) -> KeyFacts:
    """Revoke a key at once. It stays in the list, because the audit log names it by its id."""
    key = await state.security.keys.revoke(key_id)
    logger.info("API key {} revoked by {}", key.id, principal)
    return key_facts(key, state.clock.wall())


@router.post(
    "/keys/{key_id}/rotate", summary="Rotate an API key", status_code=201, responses={**NO_KEY, **REFUSED}
)
async def rotate_key(
    key_id: KeyId,
    state: TheState,
    principal: Principal,
    audit_event: TheAuditEvent,
    response: Response,
    overlap: Annotated[
        float, Query(ge=0, le=LONGEST, description="Seconds for which the old key stays valid.")
    ] = OVERLAP,
) -> MadeKey:
    """Create a key with the rights of another, which expires after the overlap; only this answer has it."""
    plain, key = await state.security.keys.rotate(key_id, overlap)
    logger.info("API key {} rotated to {} by {}", key_id, key.id, principal)
    audit_event.detail = f"replaced by {key.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(plain.text, key_facts(key, state.clock.wall()))


@router.get("/keys/{key_id}/usage", summary="Show the usage of an API key", responses=NO_KEY)
async def show_key_usage(key_id: KeyId, state: TheState, since: Since = "") -> UsageTotals:
    """Requests and tokens by day and model."""
    key = state.security.keys.get(key_id)
    return totals(await state.store.usage.totals(since, key.id))


@router.get("/usage", summary="Show the usage")
async def show_usage(state: TheState, since: Since = "") -> UsageTotals:
    """Requests and tokens by day, key and model; the key is empty for requests without one."""
    return totals(await state.store.usage.totals(since))


def totals(usage: Iterable[Usage]) -> UsageTotals:
    """Return the usage and its sums."""
    listed = list(usage)
    return UsageTotals(
        usage=listed,
        requests=sum(one.requests for one in listed),
        tokens_in=sum(one.tokens_in for one in listed),
        tokens_out=sum(one.tokens_out for one in listed),
    )
