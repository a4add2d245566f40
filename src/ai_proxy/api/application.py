"""The management application, put together."""

from importlib.metadata import version as installed_version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from ai_proxy.api import docs, problems, services, system
from ai_proxy.api.deps import Context, ControlPlane, MetricsRenderer
from ai_proxy.api.openapi import complete
from ai_proxy.api.schemas import EXAMPLES

DESCRIPTION = """\
Manages the inference backends behind one HTTP endpoint: shows, starts and stops them, reads their output,
follows what happens. The backends themselves answer under `/service/{service_id}/`, passed on verbatim.

Every error is a problem (RFC 9457) with the header `X-AI-Proxy-Error`; `code` is stable.
"""

TAGS = [
    {"name": "services", "description": "The declared backends: how they stand, starting and stopping them."},
    {"name": "system", "description": "The proxy itself: health, measurements, events, configuration."},
]


def create_app(plane: ControlPlane, metrics: MetricsRenderer, version: str) -> FastAPI:
    """Build the management application.

    Args:
        plane: What it manages.
        metrics: Returns all measurements, for `/metrics`.
        version: Of the program.
    """
    app = _describe(version)
    app.state.context = Context(plane, metrics, version)
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
    problems.install(app)
    docs.install(app)
    app.include_router(services.router)
    app.include_router(system.router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
