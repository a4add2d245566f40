"""Ollama's API as far as it only tells: which models there are, and which are ready.

The gateway's listener for Ollama's clients asks here for what is no inference, each path with `/ollama` put
in front of it. The shapes are those of Ollama's `docs/api.md`.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from ai_proxy.api.deps import AllowedModels, ControlPlane, Plane
from ai_proxy.api.errors import OLLAMA
from ai_proxy.control.views import ModelView, ServiceView
from ai_proxy.core.abilities import Modality
from ai_proxy.core.errors import InvalidRequestError, UnknownModelError
from ai_proxy.core.lifecycle import State
from ai_proxy.core.routing import ModelRoute, ModelTable
from ai_proxy.dialects.ollama import strip_latest

VERSION = "0.14.0"
"""The Ollama whose API this is. Clients read it as three numbers and refuse a server that is older than they
need: `capabilities` in `/api/show` came with 0.6.4, `/v1/messages` with 0.14.0."""

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""When a model is unloaded that stays; Ollama, too, tells of a day far off."""

type Facts = dict[str, object]
"""A JSON object as Ollama's clients expect it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model, and all there is to tell of it."""

    view: ModelView
    route: ModelRoute
    service: ServiceView


router = APIRouter(prefix=OLLAMA, include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def home() -> PlainTextResponse:
    """Say what Ollama says; its clients look for it."""
    return PlainTextResponse("Ollama is running")


@router.api_route("/api/version", methods=["GET", "HEAD"])
async def version() -> Facts:
    """Tell the version."""
    return {"version": VERSION}


@router.api_route("/api/tags", methods=["GET", "HEAD"])
async def tags(plane: Plane, allowed: AllowedModels) -> Facts:
    """List every model that may be asked for."""
    return {"models": [tag(entry) for entry in _entries(plane) if allowed(entry.view)]}


@router.get("/api/ps")
async def ps(plane: Plane, allowed: AllowedModels) -> Facts:
    """List the models of the services that are ready."""
    now, serving = datetime.now(UTC), (State.READY, State.DRAINING)
    entries = [entry for entry in _entries(plane) if entry.view.state in serving]
    return {"models": [loaded(entry, now) for entry in entries if allowed(entry.view)]}


@router.post("/api/show")
async def show(plane: Plane, request: Request, allowed: AllowedModels) -> Facts:
    """Tell about one model."""
    name = asked_model(await request.body())
    entry = _entry(plane, name)
    if not allowed(entry.view):
        raise UnknownModelError(name)
    return shown(entry)


def asked_model(body: bytes) -> str:
    """Return the name of the model that a body asks for, whatever its media type says.

    Raises:
        InvalidRequestError: It names none.

    >>> asked_model(b'{"model": "llama3"}'), asked_model(b'{"name": "llama3"}')
    ('llama3', 'llama3')
    """
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    name = (asked.get("model") or asked.get("name")) if isinstance(asked, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("model is required: a name that GET /api/tags lists", "model")
    return name


def tag(entry: Entry) -> Facts:
    """Return what `/api/tags` tells of a model."""
    view = entry.view
    extent = {} if view.context_length is None else {"context_length": view.context_length}
    return {
        "name": view.name,
        "model": view.name,
        "modified_at": timestamp(datetime.fromtimestamp(view.since, UTC)),
        "size": 0,
        "digest": digest(view),
        "details": {**details(view), **extent},
        "capabilities": capabilities(entry.route, view.kind),
    }


def loaded(entry: Entry, now: datetime) -> Facts:
    """Return what `/api/ps` tells of a model that is ready."""
    view, idle, stats = entry.view, entry.service.idle_stop_in, entry.service.stats
    return {
        "name": view.name,
        "model": view.name,
        "size": stats.memory if stats else 0,
        "digest": digest(view),
        "details": details(view),
        "expires_at": timestamp(NEVER if idle is None else now + timedelta(seconds=idle)),
        "size_vram": (stats and stats.gpu_memory) or 0,
        "context_length": view.context_length or 0,
    }


def shown(entry: Entry) -> Facts:
    """Return what `/api/show` tells of a model; what only Ollama itself could know is left empty."""
    view = entry.view
    info: Facts = {"general.architecture": view.engine, "general.basename": view.name}
    if view.context_length is not None:
        info[f"{view.engine}.context_length"] = view.context_length
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details(view),
        "model_info": info,
        "capabilities": capabilities(entry.route, view.kind),
        "modified_at": timestamp(datetime.fromtimestamp(view.since, UTC)),
    }


def capabilities(route: ModelRoute, kind: str) -> list[str]:
    """Return what a model can do, in Ollama's words; clients show only models that can do what they need."""
    if kind == "embeddings":
        return ["embedding"]
    abilities, model = route.offer.abilities, route.model
    told = None if model is None else model.modalities
    sees = Modality.IMAGE in (abilities.modalities if told is None else told)
    calls = "tools" not in abilities.parameters
    return ["completion", *(["tools"] if calls else []), *(["vision"] if sees else [])]


def details(view: ModelView) -> Facts:
    """Return the details that every listing has; the engine stands for the family."""
    return {
        "parent_model": "",
        "format": "",
        "family": view.engine,
        "families": [view.engine],
        "parameter_size": "",
        "quantization_level": "",
    }


def digest(view: ModelView) -> str:
    """Return a digest that stays the same for as long as the name means the same model."""
    return hashlib.sha256(f"{view.service_id}\n{view.engine}\n{view.target}".encode()).hexdigest()


def timestamp(moment: datetime) -> str:
    """Return a moment as Ollama writes it (RFC 3339).

    >>> timestamp(datetime.fromtimestamp(0, UTC))
    '1970-01-01T00:00:00.000000Z'
    """
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _entries(plane: ControlPlane) -> list[Entry]:
    routes = ModelTable.of(plane.offers()).routes
    services = {service.id: service for service in plane.services()}
    return [Entry(view, routes[view.name], services[view.service_id]) for view in plane.models()]


def _entry(plane: ControlPlane, name: str) -> Entry:
    table = ModelTable.of(plane.offers())
    view = _find(plane, name)
    return Entry(view, table.find(view.name), plane.service(view.service_id))


def _find(plane: ControlPlane, name: str) -> ModelView:
    try:
        return plane.model(name)
    except UnknownModelError:
        if strip_latest(name) == name:
            raise
        return plane.model(strip_latest(name))
