"""Requests to models: those under way, and those that ended last. What was asked and answered is not kept."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ai_proxy.api.deps import TheContext
from ai_proxy.api.services import Flag
from ai_proxy.core.usage import LiveRequest, RequestRecord
from ai_proxy.telemetry.otel.traceparent import parse

MAX_LIMIT = 1000


class FinishedRequest(BaseModel):
    """A request that is over."""

    request_id: str = Field(description="As in `X-Request-ID`.")
    endpoint: str = Field(description="The path that was asked.")
    model: str = Field(description="As the client named it; empty when it named none.")
    service_id: str = Field(description="Who answered; empty when nobody was found.")
    engine: str = Field(description="The software that answered; empty likewise.")
    streamed: bool = Field(description="Whether the answer was asked for as a stream.")
    status: int = Field(
        description="HTTP status sent; 499 when the client left first, 599 when the response broke off."
    )
    error: str = Field(description="Code of the proxy's own error; empty for none.")
    started: float = Field(description="When its head had come, in seconds since the epoch.")
    seconds: float = Field(description="From then to the end of the response.")
    waited: float = Field(description="Seconds of that in the queue, or until a model was loaded.")
    loaded: bool = Field(description="Whether it waited for a start.")
    time_to_first_token: float | None = Field(description="In seconds; null but for streams.")
    tokens_in: int | None = Field(description="Of the prompt; null when that is not known.")
    tokens_out: int | None = Field(description="Of the answer; null likewise.")
    tokens_per_second: float | None = Field(
        description="How fast a stream came; null when that is not known."
    )
    trace_id: str | None = Field(description="Of its trace, when it has one.")


class RequestList(BaseModel):
    """Requests to models."""

    live: list[LiveRequest] = Field(description="Under way, the last to begin first.")
    recent: list[FinishedRequest] = Field(
        description="Over, the last to end first; older ones are forgotten. Empty with `live`."
    )


router = APIRouter(prefix="/api/v1", tags=["system"])


@router.get("/requests", summary="List requests to models")
async def list_requests(
    context: TheContext,
    *,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT, description="Of each list, at most so many.")] = 100,
    service: Annotated[str | None, Query(description="Only those of a service.", examples=["llama3"])] = None,
    model: Annotated[str | None, Query(description="Only those for a model.", examples=["llama3"])] = None,
    live: Annotated[Flag, Query(description="Only those under way.")] = False,
) -> RequestList:
    """What is asked of models now, and what was asked last: who answered, how long it took, how fast.

    Nothing of prompts and answers is kept, and nothing of who asked.
    """
    under_way = sorted(context.requests.live(), key=lambda request: -request.started)
    recent = () if live else context.requests.recent()
    return RequestList(
        live=select(under_way, limit, service, model),
        recent=[_finished(one) for one in select(recent, limit, service, model)],
    )


def select[T: (RequestRecord, LiveRequest)](
    requests: Sequence[T], limit: int, service: str | None, model: str | None
) -> list[T]:
    """Return the first of those that are for a service and a model; None for any."""
    chosen = (
        one
        for one in requests
        if (service is None or one.service_id == service) and (model is None or one.model == model)
    )
    return list(islice(chosen, limit))


def _finished(request: RequestRecord) -> FinishedRequest:
    context = parse(request.traceparent.encode(errors="replace"))
    return FinishedRequest(
        request_id=request.request_id,
        endpoint=request.endpoint,
        model=request.model,
        service_id=request.service_id,
        engine=request.engine,
        streamed=request.streamed,
        status=request.status,
        error=request.error,
        started=request.started,
        seconds=request.seconds,
        waited=request.waited,
        loaded=request.loaded,
        time_to_first_token=request.first_token if request.streamed and request.first_token >= 0 else None,
        tokens_in=request.tokens_in if request.tokens_in >= 0 else None,
        tokens_out=request.tokens_out if request.tokens_out >= 0 else None,
        tokens_per_second=request.tokens_per_second,
        trace_id=f"{context.trace_id:032x}" if context else None,
    )
