"""API keys: making, listing, ending and replacing them, and what was used with them."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ai_proxy.api.deps import Kept, Principal, TheAuditEvent
from ai_proxy.api.errors import Problem
from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.core.key_facts import KeyFacts, MadeKey, described, key_facts
from ai_proxy.core.keys import MAX_LABEL, Grant, Scope, redacted
from ai_proxy.core.limits import MAX_LIMIT, Allowance
from ai_proxy.core.store_ports import Usage

OVERLAP = 3600.0
"""Seconds for which a key that is replaced is still good, when the caller does not say."""
LONGEST = 100 * 366 * 86_400
"""Longest time in seconds that a key can be good for from now on."""

NOT_KEPT: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "The store cannot be used now; `detail` says why."}
}
NO_KEY: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no API key of that id."}
}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no text, or what is asked for makes no sense."}
}
KeyId = Annotated[str, AfterValidator(redacted), Path(description="The key's id.", examples=["0123456789ab"])]
Limit = Annotated[int | None, Field(ge=0, le=MAX_LIMIT)]


class NewKey(BaseModel):
    """What a new key is to be. A limit that is left out is as the policy says, and 0 is none."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=MAX_LABEL, description="What people call it.")
    scopes: set[Scope] = Field(
        {Scope.INFERENCE}, min_length=1, description="`inference`: asking models; `admin`: management."
    )
    models: set[str] = Field(
        set(), description="Names or patterns such as `llama*` of the models it is for; empty for all."
    )
    expires_in: float | None = Field(
        None, gt=0, le=LONGEST, description="Seconds from now for which it is good; left out for ever."
    )
    expires_at: float | None = Field(
        None, ge=0, le=1e11, description="From when on it is no longer good, instead of `expires_in`."
    )
    rpm: Limit = Field(None, description="Requests per minute.")
    burst: Limit = Field(None, description="Requests at once; 0 for a minute's worth.")
    tpm: Limit = Field(None, description="Tokens per minute, of prompts and answers together.")
    concurrency: Limit = Field(None, description="Requests in flight.")

    def grant(self) -> Grant:
        """Return what its holder may do."""
        allowance = Allowance(self.rpm, self.burst, self.tpm, self.concurrency)
        return Grant(self.label, frozenset(self.scopes), frozenset(self.models), allowance)

    def expires(self, now: float) -> float | None:
        """Return from when on it is no longer good, in seconds since the epoch; None for never.

        Raises:
            InvalidRequestError: Two moments are given, or one that is past.
        """
        if self.expires_in is not None and self.expires_at is not None:
            raise InvalidRequestError("give expires_in or expires_at, not both", "expires_at")
        if self.expires_at is not None and self.expires_at <= now:
            raise InvalidRequestError("expires_at is past", "expires_at")
        return self.expires_at if self.expires_in is None else now + self.expires_in


class KeyList(BaseModel):
    """Every key there ever was."""

    keys: list[KeyFacts] = Field(description="Oldest first; revoked and expired ones too.")


class UsageTotals(BaseModel):
    """What was used of models."""

    usage: list[Usage] = Field(description="By day, key and model.")
    requests: int = Field(description="How many, in all.")
    tokens_in: int = Field(description="Of prompts, in all.")
    tokens_out: int = Field(description="Of answers, in all.")


router = APIRouter(prefix="/api/v1", tags=["keys"], responses=NOT_KEPT)
Since = Annotated[
    str,
    Query(
        pattern=r"^(\d{4}-\d\d-\d\d)?$",
        description="First day, in UTC; empty for all.",
        examples=["2026-01-31"],
    ),
]


@router.get("/keys", summary="List the API keys")
async def list_keys(kept: Kept) -> KeyList:
    """Every key with its limits and last use, but not the key itself, which nobody knows but its holder."""
    now = kept.clock.wall()
    return KeyList(keys=[key_facts(key, now) for key in kept.security.keys.all()])


@router.post("/keys", summary="Create an API key", status_code=201, responses=REFUSED)
async def create_key(
    wanted: NewKey, kept: Kept, principal: Principal, audit_event: TheAuditEvent, response: Response
) -> MadeKey:
    """Make a key. It is in the answer, this once.

    The first key turns authentication on: from then on every request needs one.
    """
    now = kept.clock.wall()
    plain, key = await kept.security.keys.create(wanted.grant(), wanted.expires(now))
    logger.info("API key {} created by {}", key.id, principal)
    audit_event.target, audit_event.detail = key.id, described(key.grant)
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(plain.text, key_facts(key, now))


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses=NO_KEY)
async def revoke_key(key_id: KeyId, kept: Kept, principal: Principal) -> KeyFacts:
    """End a key at once. It stays in the list, so that the audit log's ids keep their meaning."""
    key = await kept.security.keys.revoke(key_id)
    logger.info("API key {} revoked by {}", key.id, principal)
    return key_facts(key, kept.clock.wall())


@router.post(
    "/keys/{key_id}/rotate", summary="Replace an API key", status_code=201, responses={**NO_KEY, **REFUSED}
)
async def rotate_key(
    key_id: KeyId,
    kept: Kept,
    principal: Principal,
    audit_event: TheAuditEvent,
    response: Response,
    overlap: Annotated[
        float, Query(ge=0, le=LONGEST, description="Seconds for which the old one is still good.")
    ] = OVERLAP,
) -> MadeKey:
    """Make a key that may do what another may, and end that one after a while. The answer has the new one."""
    plain, key = await kept.security.keys.rotate(key_id, overlap)
    logger.info("API key {} replaced by {}, as {} asked", key_id, key.id, principal)
    audit_event.detail = f"replaced by {key.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(plain.text, key_facts(key, kept.clock.wall()))


@router.get("/keys/{key_id}/usage", summary="What was used with an API key", responses=NO_KEY)
async def show_key_usage(key_id: KeyId, kept: Kept, since: Since = "") -> UsageTotals:
    """Requests and tokens by day and model."""
    key = kept.security.keys.get(key_id)
    return totals(await kept.store.usage.totals(since, key.id))


@router.get("/usage", summary="What was used")
async def show_usage(kept: Kept, since: Since = "") -> UsageTotals:
    """Requests and tokens by day, key and model; requests without a key have an empty one."""
    return totals(await kept.store.usage.totals(since))


def totals(usage: Iterable[Usage]) -> UsageTotals:
    """Add up what was used."""
    listed = list(usage)
    return UsageTotals(
        usage=listed,
        requests=sum(one.requests for one in listed),
        tokens_in=sum(one.tokens_in for one in listed),
        tokens_out=sum(one.tokens_out for one in listed),
    )
