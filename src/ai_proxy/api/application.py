"""The management application, put together."""

from collections.abc import Callable, Mapping
from importlib.metadata import version as installed_version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from ai_proxy.api import (
    audit,
    docs,
    engines,
    errors,
    keys,
    models,
    ollama,
    policy,
    requests,
    services,
    settings,
    system,
)
from ai_proxy.api.audited import Audited
from ai_proxy.api.deps import (
    NOTHING_KEPT,
    Context,
    ControlPlane,
    Keeping,
    MetricsRenderer,
    NoEngines,
    Requests,
)
from ai_proxy.api.openapi import complete
from ai_proxy.api.schemas import EXAMPLES
from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import EngineDetector
from ai_proxy.platform.addresses import Addresses
from ai_proxy.platform.tasks import Restarts

DESCRIPTION = """\
One HTTP endpoint in front of every inference backend of a machine.

Under `/v1` it speaks OpenAI's API, and Anthropic's Messages API, for every model of every backend:
`model` says which is meant, and a backend that is stopped is started by the request. Under
`/service/{service_id}/` each backend answers itself, everything passed on verbatim. Under `/api/v1` the
backends are shown, started and stopped, their output is read, what happens is followed, and keys, policy and
settings are kept; whatever changes something there is in the audit log.

An error of the proxy's own carries the header `X-AI-Proxy-Error`; its `code` is stable. Under `/v1` it has
OpenAI's form, elsewhere it is a problem (RFC 9457). Errors of a backend are passed on as they are.
"""

TAGS = [
    {
        "name": "inference",
        "description": "The models of all backends, as clients of OpenAI's API ask for them.",
    },
    {"name": "services", "description": "The declared backends: how they stand, starting and stopping them."},
    {"name": "engines", "description": "Engines that run by themselves: finding them."},
    {"name": "keys", "description": "API keys: who may call, for which models, how much, and what was used."},
    {
        "name": "policy",
        "description": "What holds for every request: from where, how often, from which pages.",
    },
    {"name": "audit", "description": "What was done by whom from where, and what was refused."},
    {"name": "settings", "description": "Settings that are changed while the proxy runs."},
    {"name": "system", "description": "The proxy itself: health, measurements, events, configuration."},
]


def create_app(
    plane: ControlPlane,
    metrics: MetricsRenderer,
    version: str,
    addresses: Addresses | None = None,
    requests: Requests | None = None,
    detector: EngineDetector | None = None,
    keeping: Keeping | StoreError = NOTHING_KEPT,
    restarts: Callable[[], Mapping[str, Restarts]] = dict,
) -> FastAPI:
    """Build the management application.

    Args:
        plane: What it manages.
        metrics: Returns all measurements, for `/metrics`.
        version: Of the program.
        addresses: Where the proxy listens; filled in when it does.
        requests: Where the requests to models are looked up.
        detector: Finds engines that run by themselves.
        keeping: What lasts, or why it cannot be had: the endpoints about it then say so.
        restarts: Returns the background work that failed and was restarted, by name.
    """
    app = _describe(version)
    app.add_middleware(Audited)
    app.state.context = Context(
        plane,
        metrics,
        version,
        addresses or Addresses(),
        requests or Requests(),
        detector or NoEngines(),
        keeping,
        restarts,
    )
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the management API."""
    return _describe(installed_version("ai-inference-proxy")).openapi()


class _App(FastAPI):
    """An application whose OpenAPI document is complete."""

    def openapi(self) -> dict[str, Any]:
        """Return the document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi(), EXAMPLES)
        return self.openapi_schema


def _describe(version: str) -> FastAPI:
    app = _App(
        title="ai-proxy",
        summary="One HTTP endpoint in front of every inference backend.",
        description=DESCRIPTION,
        version=version,
        openapi_tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    errors.install(app)
    docs.install(app)
    for part in (models, services, engines, keys, policy, audit, settings, requests, system, ollama):
        app.include_router(part.router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
