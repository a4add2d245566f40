"""vLLM's OpenAI-compatible server.

What it answers: `docs/serving/online_serving` of vLLM 0.32.
"""

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import IN_CONTAINER, ON_LOOPBACK, Recipe, Template
from ai_proxy.engines.answers import Answers, is_owned_by, text_at
from ai_proxy.engines.profile import COMMON_RULES, EngineDescriptor, Locator, Profile


def is_vllm(answers: Answers) -> bool:
    """Return whether these answers are vLLM's; one that requires a key still gives its version."""
    if is_owned_by(answers, "vllm"):
        return True
    health, models = answers.get("/health"), answers.get("/v1/models")
    return (
        health is not None
        and (health.status, health.body) == (200, b"")
        and models is not None
        and models.status == 401
        and text_at(answers, "/version", "version") is not None
    )


VLLM = EngineDescriptor(
    profile=Profile(
        "vllm",
        abilities=Abilities(
            "vLLM",
            TEXT_ENDPOINTS
            | {
                Endpoint.RESPONSES,
                Endpoint.RERANK,
                Endpoint.MESSAGES,
                Endpoint.COUNT_TOKENS,
                Endpoint.TRANSCRIPTIONS,
                Endpoint.TRANSLATIONS,
            },
            COMMON_RULES,
            frozenset({Modality.IMAGE, Modality.AUDIO}),
        ),
    ),
    templates=(
        Template(
            "vllm",
            "vLLM's OpenAI server",
            engine="vllm",
            runtime=RuntimeKind.PROCESS,
            image="vllm/vllm-openai:latest",
            port=8000,
            health_path="/health",
            process=Recipe(command=("vllm", "serve"), address=ON_LOOPBACK),
            docker=Recipe(address=IN_CONTAINER),
        ),
    ),
    locator=Locator(
        port=8000,
        variable="VLLM_PORT",
        programs=("vllm",),
        paths=("~/.local/bin/vllm", "~/.venv/bin/vllm"),
        asks=("/health", "/version"),
        is_it=is_vllm,
        version=lambda answers: text_at(answers, "/version", "version"),
    ),
)
"""It listens only after it has loaded; `/health` then answers 200 with an empty body."""
