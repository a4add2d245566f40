"""Builds the management application."""

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
from ai_proxy.api.audited import AuditMiddleware
from ai_proxy.api.deps import Context
from ai_proxy.api.openapi import complete
from ai_proxy.api.schemas import EXAMPLES

DESCRIPTION = """\
One HTTP endpoint in front of every inference backend of a machine.

Under `/v1` it speaks OpenAI's API, and Anthropic's Messages API, for every model of every backend:
`model` selects the backend, and a request starts a backend that is stopped. Under `/service/{service_id}/`
the proxy forwards requests to a backend verbatim. `/api/v1` shows, starts and stops backends, shows their
output and events, and manages keys, policy and settings; the audit log records every change.

The proxy's own errors carry the header `X-AI-Proxy-Error`, whose codes are stable. Under `/v1` they have
OpenAI's form, elsewhere they are problems (RFC 9457). Errors of a backend are forwarded unchanged.
"""

TAGS = [
    {
        "name": "inference",
        "description": "The models of all backends, for clients of OpenAI's and Anthropic's APIs.",
    },
    {"name": "services", "description": "The declared backends: their state, starting and stopping them."},
    {"name": "engines", "description": "Engines that the proxy did not start: detecting them."},
    {"name": "keys", "description": "API keys: scopes, models, limits and usage."},
    {
        "name": "policy",
        "description": "Rules for every request: allowlist, rate limits, CORS.",
    },
    {"name": "audit", "description": "Management changes and refused requests: who, what, from where."},
    {"name": "settings", "description": "Settings that can be changed while the proxy runs."},
    {"name": "system", "description": "The proxy itself: health, metrics, events, configuration."},
]


def create_app(context: Context) -> FastAPI:
    """Build the management application around what its endpoints use."""
    app = _describe(context.version)
    app.add_middleware(AuditMiddleware)
    app.state.context = context
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the management API."""
    return _describe(installed_version("ai-inference-proxy")).openapi()


class _App(FastAPI):
    """An application whose OpenAPI document is complete."""

    def openapi(self) -> dict[str, Any]:
        """Return the document; it is made once."""
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
