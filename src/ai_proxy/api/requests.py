"""Requests to models: unfinished and recent ones. Prompts and answers are not kept."""

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
    """A finished request."""

    request_id: str = Field(description="As in `X-Request-ID`.")
    endpoint: str = Field(description="The requested path.")
    model: str = Field(description="The requested name; empty without one.")
    service_id: str = Field(description="The service that answered; empty when none did.")
    engine: str = Field(description="Engine of that service; empty when none answered.")
    streamed: bool = Field(description="Whether the client asked for a stream.")
    status: int = Field(
        description="HTTP status sent; 499 when the client left first, 599 when the response broke off."
    )
    error: str = Field(description="Code of the proxy's own error; empty without one.")
    started: float = Field(description="When its head was complete, in seconds since the epoch.")
    seconds: float = Field(description="Seconds from then to the end of the response.")
    waited: float = Field(description="Seconds of that in the queue, or until the model was loaded.")
    loaded: bool = Field(description="Whether it waited for a start.")
    time_to_first_token: float | None = Field(description="In seconds; null except for streams.")
    tokens_in: int | None = Field(description="Tokens of the prompt; null when unknown.")
    tokens_out: int | None = Field(description="Tokens of the answer; null when unknown.")
    tokens_per_second: float | None = Field(description="Speed of a stream; null when unknown.")
    trace_id: str | None = Field(description="Id of its trace; null without one.")


class RequestList(BaseModel):
    """Requests to models."""

    live: list[LiveRequest] = Field(description="Unfinished ones, the newest first.")
    recent: list[FinishedRequest] = Field(
        description="The last finished ones, newest first; empty with `live`."
    )


router = APIRouter(prefix="/api/v1", tags=["system"])


@router.get("/requests", summary="List requests to models")
async def list_requests(
    context: TheContext,
    *,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT, description="Maximum length of each list.")] = 100,
    service: Annotated[
        str | None, Query(description="Only requests that this service answered.", examples=["llama3"])
    ] = None,
    model: Annotated[
        str | None, Query(description="Only requests for this model.", examples=["llama3"])
    ] = None,
    live: Annotated[Flag, Query(description="Only unfinished requests.")] = False,
) -> RequestList:
    """Unfinished and recent requests to models: the service that answered, durations, speed.

    Prompts, answers and callers are not kept.
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
    """Return the first requests for a service and a model; None for any."""
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
