"""The policy: allowlist, rate limits, CORS."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from loguru import logger
from pydantic import BaseModel, Field, GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from ai_proxy.api.deps import Address, Principal, TheAuditEvent, TheState
from ai_proxy.api.errors import Problem
from ai_proxy.api.keys import REFUSED, STORE_UNAVAILABLE
from ai_proxy.api.middleware import OWNER
from ai_proxy.api.services import Flag
from ai_proxy.core.errors import RequestError
from ai_proxy.core.policy import Policy, is_allowed, parse_address
from ai_proxy.core.policy_document import POLICY_SCHEMA, parse_policy
from ai_proxy.core.store_ports import PolicyRevision


class LockedOutError(RequestError):
    """The policy would lock out the caller that sets it."""

    code, status, title = "policy_locks_out", 409, "Policy locks you out"


class PolicyDocument(RootModel[dict[str, object]]):
    """A policy; what is omitted has its default."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _core_schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        """Return the JSON Schema of policies."""
        return {name: value for name, value in POLICY_SCHEMA.items() if name != "$schema"}


class Revision(BaseModel):
    """One version of the policy."""

    number: int = Field(description="Counts from 1; the highest is in force.")
    at: float = Field(description="When it was set, in seconds since the epoch.")
    who: str = Field(description="Who set it: a key's id, or `owner`.")
    policy: PolicyDocument = Field(description="The whole policy.")


class Revisions(BaseModel):
    """The versions of the policy."""

    revisions: list[Revision] = Field(description="Newest first.")


router = APIRouter(prefix="/api/v1/policy", tags=["policy"], responses=STORE_UNAVAILABLE)


@router.get("", summary="Show the policy")
async def show_policy(state: TheState) -> PolicyDocument:
    """The whole policy in force."""
    return PolicyDocument(dict(state.security.policy.document()))


@router.put(
    "",
    summary="Set the policy",
    responses={
        **REFUSED,
        409: {"model": Problem, "description": "The allowlist does not contain your own address."},
    },
)
async def set_policy(
    document: PolicyDocument,
    state: TheState,
    principal: Principal,
    address: Address,
    audit_event: TheAuditEvent,
    *,
    force: Annotated[Flag, Query(description="Set it even if it locks you out.")] = False,
) -> Revision:
    """Put a policy in force at once, for every path; what it omits has its default.

    A policy with errors changes nothing; `detail` has one line for each error. A policy whose allowlist does
    not contain your own address is refused unless `force` is given.
    """
    policy = parse_policy(document.root)
    if not force and principal != OWNER and locks_out(policy, address):
        raise LockedOutError(
            f"the allowlist does not contain your address {address}; add it, or set the policy with"
            " ?force=true: then only clients elsewhere, or 'ai-proxy security policy' on this machine,"
            " can change it"
        )
    revision = await state.security.policy.set(document.root, principal)
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
    """The JSON Schema of policies, for editors."""
    return JSONResponse(POLICY_SCHEMA)


@router.get("/history", summary="List the versions of the policy")
async def list_policies(
    state: TheState,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of versions.")] = 100,
) -> Revisions:
    """Who set which policy, and when. To go back, set an old one again."""
    history = await state.security.policy.history(limit)
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
