"""Engines known only by their protocol: OpenAI's API, or just HTTP."""

from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import Template
from ai_proxy.engines.profile import EngineDescriptor, Profile

OPENAI = EngineDescriptor(
    profile=Profile("openai", alive=frozenset({200, 401, 403, 404, 429})),
    templates=(
        Template(
            "openai",
            "a remote service with the OpenAI API",
            engine="openai",
            health_path="/v1/models",
            runtime=RuntimeKind.EXTERNAL,
        ),
    ),
)
"""Any server with OpenAI's API, most often a remote provider: one that requires another key is up."""

GENERIC = EngineDescriptor(
    profile=Profile("generic", listings=(), alive=range(100, 500)),
    templates=(Template("generic", "any HTTP server", engine="generic"),),
)
"""Any HTTP server: every answer below 500 shows that it is up."""
