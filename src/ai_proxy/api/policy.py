"""The policy: who may call from where, and how much."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from loguru import logger
from pydantic import BaseModel, Field, GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from ai_proxy.api.deps import Address, Kept, Principal, TheAuditEvent
from ai_proxy.api.errors import Problem
from ai_proxy.api.keys import NOT_KEPT, REFUSED
from ai_proxy.api.middleware import OWNER
from ai_proxy.api.services import Flag
from ai_proxy.core.errors import RequestError
from ai_proxy.core.policy import Policy, is_allowed, parse_address
from ai_proxy.core.policy_document import POLICY_SCHEMA, parse_policy
from ai_proxy.core.store_ports import PolicyRevision


class LockedOutError(RequestError):
    """Whoever sets this policy could not call any more to set another."""

    code, status, title = "policy_locks_out", 409, "Policy locks out"


class PolicyDocument(RootModel[dict[str, object]]):
    """A policy; what is left out is as by default."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _core_schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        """Return the schema by which policies are read."""
        return {name: value for name, value in POLICY_SCHEMA.items() if name != "$schema"}


class Revision(BaseModel):
    """A policy that was set."""

    number: int = Field(description="Counts them from 1; the highest is in force.")
    at: float = Field(description="When it was set, in seconds since the epoch.")
    who: str = Field(description="Who set it: a key's id, or `owner`.")
    policy: PolicyDocument = Field(description="In full.")


class Revisions(BaseModel):
    """The policies that were set."""

    revisions: list[Revision] = Field(description="Newest first.")


router = APIRouter(prefix="/api/v1/policy", tags=["policy"], responses=NOT_KEPT)


@router.get("", summary="Show the policy")
async def show_policy(kept: Kept) -> PolicyDocument:
    """The policy in force, in full; change it and put it back."""
    return PolicyDocument(dict(kept.security.policy.document()))


@router.put(
    "",
    summary="Set the policy",
    responses={
        **REFUSED,
        409: {"model": Problem, "description": "Its allowlist does not name your own address."},
    },
)
async def set_policy(
    document: PolicyDocument,
    kept: Kept,
    principal: Principal,
    address: Address,
    audit_event: TheAuditEvent,
    *,
    force: Annotated[Flag, Query(description="Set it although it locks you out.")] = False,
) -> Revision:
    """Put a policy in force, for every path and at once; what it leaves out is as by default.

    One with errors changes nothing: each is one line of `detail`. One whose allowlist does not name your own
    address is refused unless `force` is given.
    """
    policy = parse_policy(document.root)
    if not force and principal != OWNER and locks_out(policy, address):
        raise LockedOutError(
            f"the allowlist does not name the address {address} that you call from; add it, or set the policy"
            " with ?force=true, after which only others, or 'ai-proxy security policy' here, can change it"
        )
    revision = await kept.security.policy.set(document.root, principal)
    logger.info("policy {} set by {}", revision.number, principal)
    audit_event.detail = f"revision {revision.number}"
    return _revision(revision)


@router.get(
    "/schema",
    summary="Show the policy's schema",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def show_policy_schema() -> JSONResponse:
    """JSON Schema of a policy, for editors."""
    return JSONResponse(POLICY_SCHEMA)


@router.get("/history", summary="List the policies that were set")
async def list_policies(
    kept: Kept, limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100
) -> Revisions:
    """Who set which policy, and when. To go back, put an old one in force again."""
    history = await kept.security.policy.history(limit)
    return Revisions(revisions=[_revision(one) for one in history])


def locks_out(policy: Policy, address: str) -> bool:
    """Tell whether a policy would refuse a client.

    >>> locks_out(parse_policy({"allowlist": ["10.0.0.0/8"]}), "192.0.2.7"), locks_out(Policy(), "192.0.2.7")
    (True, False)
    """
    return not is_allowed(parse_address(address), policy.allowlist)


def _revision(revision: PolicyRevision) -> Revision:
    return Revision(
        number=revision.number,
        at=revision.at,
        who=revision.who,
        policy=PolicyDocument(dict(revision.document)),
    )
