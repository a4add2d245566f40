"""The part of Ollama's API that is no inference: listing models, and showing them.

The gateway's listener for Ollama's clients forwards these paths here, under the prefix `/ollama`. The answers
have the form that Ollama's `docs/api.md` describes.
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
"""The version of Ollama whose API this is. Clients refuse a server that is too old for them: `/api/show` has
`capabilities` since 0.6.4, `/v1/messages` exists since 0.14.0."""

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Expiry of a model that is never unloaded; Ollama, too, answers a date in the far future."""

type Facts = dict[str, object]
"""A JSON object in Ollama's form."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model, its route and its service."""

    view: ModelView
    route: ModelRoute
    service: ServiceView


router = APIRouter(prefix=OLLAMA, include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def home() -> PlainTextResponse:
    """Answer as Ollama does: its clients check for this text."""
    return PlainTextResponse("Ollama is running")


@router.api_route("/api/version", methods=["GET", "HEAD"])
async def version() -> Facts:
    """Return the version."""
    return {"version": VERSION}


@router.api_route("/api/tags", methods=["GET", "HEAD"])
async def tags(plane: Plane, allowed: AllowedModels) -> Facts:
    """List every model that the caller may use."""
    return {"models": [tag(entry) for entry in _entries(plane) if allowed(entry.view)]}


@router.get("/api/ps")
async def ps(plane: Plane, allowed: AllowedModels) -> Facts:
    """List the models of the services that are ready."""
    now, serving = datetime.now(UTC), (State.READY, State.DRAINING)
    entries = [entry for entry in _entries(plane) if entry.view.state in serving]
    return {"models": [loaded(entry, now) for entry in entries if allowed(entry.view)]}


@router.post("/api/show")
async def show(plane: Plane, request: Request, allowed: AllowedModels) -> Facts:
    """Show one model."""
    name = asked_model(await request.body())
    entry = _entry(plane, name)
    if not allowed(entry.view):
        raise UnknownModelError(name)
    return shown(entry)


def asked_model(body: bytes) -> str:
    """Return the name of the model in a body, whatever its media type.

    Raises:
        InvalidRequestError: It names none.

    >>> asked_model(b'{"model": "llama3"}'), asked_model(b'{"name": "llama3"}')
    ('llama3', 'llama3')
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    name = (asked.get("model") or asked.get("name")) if isinstance(asked, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("model is required: a name that GET /api/tags lists", "model")
    return name


def tag(entry: Entry) -> Facts:
    """Return a model as `/api/tags` lists it."""
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
    """Return a loaded model as `/api/ps` lists it."""
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
    """Return a model as `/api/show` shows it; what only Ollama itself knows is empty."""
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
    """Return what a model can do, in Ollama's terms; clients hide models that lack what they need."""
    if kind == "embeddings":
        return ["embedding"]
    abilities, model = route.offer.abilities, route.model
    told = None if model is None else model.modalities
    sees = Modality.IMAGE in (abilities.modalities if told is None else told)
    calls = "tools" not in abilities.parameters
    return ["completion", *(["tools"] if calls else []), *(["vision"] if sees else [])]


def details(view: ModelView) -> Facts:
    """Return the details in every listing; the engine takes the place of the family."""
    return {
        "parent_model": "",
        "format": "",
        "family": view.engine,
        "families": [view.engine],
        "parameter_size": "",
        "quantization_level": "",
    }


def digest(view: ModelView) -> str:
    """Return a digest that changes when the name refers to another model."""
    return hashlib.sha256(f"{view.service_id}\n{view.engine}\n{view.target}".encode()).hexdigest()


def timestamp(moment: datetime) -> str:
    """Return a time in Ollama's format (RFC 3339).

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
