"""The audit log: what was done, by whom, from where, and what was refused."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ai_proxy.api.deps import Keeping, Kept
from ai_proxy.api.keys import NOT_KEPT
from ai_proxy.api.services import Flag
from ai_proxy.api.sse import EventStream, event, stream
from ai_proxy.core.store_ports import AuditEntry

NDJSON = "application/x-ndjson"
MAX_LIMIT = 10_000

_EXAMPLE = AuditEntry(1700000000.0, "owner", "service.stop llama3", "local", "ok", seq=7)


class AuditFormat(StrEnum):
    """How the log is written."""

    JSON = "json"
    NDJSON = "ndjson"


class AuditPage(BaseModel):
    """A part of the audit log."""

    entries: list[AuditEntry] = Field(description="Oldest first.")
    next: int = Field(description="What to give as `after` for what follows.")


router = APIRouter(prefix="/api/v1", tags=["audit"], responses=NOT_KEPT)
Moment = Annotated[float | None, Query(ge=0, le=1e11)]


@router.get(
    "/audit",
    summary="Read the audit log",
    response_model=AuditPage,
    responses={
        200: {
            "description": "A part of the log; all of it as JSON lines with `format=ndjson`; with `follow` "
            "server-sent events of the kind `audit`, one for each entry.",
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
    kept: Kept,
    *,
    since: Annotated[Moment, Query(description="Leaves out what is older; seconds since the epoch.")] = None,
    until: Annotated[Moment, Query(description="Leaves out what is as old or younger; likewise.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many; not with `ndjson`.")] = 100,
    after: Annotated[
        int | None,
        Query(ge=0, le=2**53, description="Begins behind this entry, by `seq`; left out: the last ones."),
    ] = None,
    format: Annotated[  # noqa: A002 - the parameter's name
        AuditFormat, Query(description="`ndjson`: all that lies between `since` and `until`, a line each.")
    ] = AuditFormat.JSON,
    follow: Annotated[Flag, Query(description="Go on with every new entry, until you leave.")] = False,
    last_event_id: Annotated[
        int, Header(ge=0, le=2**53, description="The last entry got, when connecting again.")
    ] = 0,
) -> AuditPage | Response:
    """Management changes and refused requests: who, what, from where, the result. Nothing is ever removed."""
    if follow:
        return EventStream(stream(kept.security.audit.follow(last_event_id or after), _event))
    if format is AuditFormat.NDJSON:
        return StreamingResponse(_lines(kept, since, until), media_type=NDJSON)
    return page(await _read(kept, since, until, limit, after), after or 0)


async def _read(
    kept: Keeping, since: float | None, until: float | None, limit: int, after: int | None
) -> Sequence[AuditEntry]:
    if after is None:
        return await kept.store.audit.newest(limit, since, until)
    return await kept.store.audit.page(after, limit, since, until)


def page(entries: Sequence[AuditEntry], after: int) -> AuditPage:
    """Return a part of the log, and where it ends."""
    return AuditPage(entries=list(entries), next=entries[-1].seq if entries else after)


async def _lines(kept: Keeping, since: float | None, until: float | None) -> AsyncIterator[str]:
    async for entry in kept.security.audit.export(since, until):
        yield json.dumps(asdict(entry), ensure_ascii=False) + "\n"


def _event(entry: AuditEntry) -> str:
    return event(asdict(entry), id=entry.seq, kind="audit")
