"""Reading the audit log: management changes and refused requests."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ai_proxy.api.deps import StoredState, TheState
from ai_proxy.api.keys import STORE_UNAVAILABLE
from ai_proxy.api.services import Flag
from ai_proxy.api.sse import EventStream, event, stream
from ai_proxy.core.store_ports import AuditEntry

NDJSON = "application/x-ndjson"
MAX_LIMIT = 10_000

_EXAMPLE = AuditEntry(1700000000.0, "owner", "service.stop llama3", "local", "ok", seq=7)


class AuditFormat(StrEnum):
    """Format of the answer."""

    JSON = "json"
    NDJSON = "ndjson"


class AuditPage(BaseModel):
    """A part of the audit log."""

    entries: list[AuditEntry] = Field(description="Oldest first.")
    next: int = Field(description="The `after` of the next request.")


router = APIRouter(prefix="/api/v1", tags=["audit"], responses=STORE_UNAVAILABLE)
Moment = Annotated[float | None, Query(ge=0, le=1e11)]


@router.get(
    "/audit",
    summary="Read the audit log",
    response_model=AuditPage,
    responses={
        200: {
            "description": "A part of the log; with `format=ndjson` all of it, as JSON lines; with `follow` "
            "one server-sent event `audit` per entry.",
            "content": {
                NDJSON: {"schema": {"type": "string"}, "example": json.dumps(asdict(_EXAMPLE))},
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": event(asdict(_EXAMPLE), id=_EXAMPLE.seq, kind="audit"),
                },
            },
        }
    },
)
async def read_audit(
    state: TheState,
    *,
    since: Annotated[
        Moment, Query(description="Only entries since this time, in seconds since the epoch.")
    ] = None,
    until: Annotated[Moment, Query(description="Only entries before this time, in seconds as well.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Maximum length; not with `ndjson`.")] = 100,
    after: Annotated[
        int | None,
        Query(ge=0, le=2**53, description="Only entries after this `seq`; the newest ones when omitted."),
    ] = None,
    format: Annotated[  # noqa: A002 - the parameter's name
        AuditFormat, Query(description="`ndjson`: every entry of that time, one per line.")
    ] = AuditFormat.JSON,
    follow: Annotated[
        Flag, Query(description="Stream every new entry until the client disconnects.")
    ] = False,
    last_event_id: Annotated[
        int, Header(ge=0, le=2**53, description="The last entry received before a reconnection.")
    ] = 0,
) -> AuditPage | Response:
    """Management changes and refused requests: who, what, from where, the result. Entries are permanent."""
    if follow:
        return EventStream(stream(state.security.audit.follow(last_event_id or after), _event))
    if format is AuditFormat.NDJSON:
        return StreamingResponse(_lines(state, since, until), media_type=NDJSON)
    return page(await _read(state, since, until, limit, after), after or 0)


async def _read(
    state: StoredState, since: float | None, until: float | None, limit: int, after: int | None
) -> Sequence[AuditEntry]:
    if after is None:
        return await state.store.audit.newest(limit, since, until)
    return await state.store.audit.page(after, limit, since, until)


def page(entries: Sequence[AuditEntry], after: int) -> AuditPage:
    """Return a part of the log, and where it ends."""
    return AuditPage(entries=list(entries), next=entries[-1].seq if entries else after)


async def _lines(state: StoredState, since: float | None, until: float | None) -> AsyncIterator[str]:
    async for entry in state.security.audit.export(since, until):
        yield json.dumps(asdict(entry), ensure_ascii=False) + "\n"


def _event(entry: AuditEntry) -> str:
    return event(asdict(entry), id=entry.seq, kind="audit")
