"""llama.cpp's server: `llama-server`, or the one embedded in the xllamacpp wheel.

What it answers: `tools/server/README.md` of llama.cpp, and build b11549 asked itself.
"""

import sys

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import IN_CONTAINER, ON_LOOPBACK, Recipe, Template
from ai_proxy.engines.answers import Answers, is_owned_by, text_at
from ai_proxy.engines.profile import COMMON_RULES, EngineDescriptor, Locator, Profile, single_choice


def is_llamacpp(answers: Answers) -> bool:
    """Return whether these answers are llama.cpp's; every head names it, also while it loads."""
    return any(answer.headers.get("server") == "llama.cpp" for answer in answers.values()) or is_owned_by(
        answers, "llamacpp"
    )


LLAMACPP = EngineDescriptor(
    profile=Profile(
        "llamacpp",
        abilities=Abilities(
            "llama.cpp",
            TEXT_ENDPOINTS
            | {
                Endpoint.RESPONSES,
                Endpoint.RERANK,
                Endpoint.MESSAGES,
                Endpoint.COUNT_TOKENS,
                Endpoint.TRANSCRIPTIONS,
            },
            {
                **COMMON_RULES,
                "n": single_choice("llama.cpp gives several answers only in newer builds, one for each slot"),
            },
            frozenset({Modality.IMAGE, Modality.AUDIO}),
            any_name=True,
        ),
    ),
    templates=(
        Template(
            "llama-cpp-server",
            "llama.cpp's own server; GGUF models",
            engine="llamacpp",
            runtime=RuntimeKind.PROCESS,
            image="ghcr.io/ggml-org/llama.cpp:server",
            port=8080,
            health_path="/health",
            process=Recipe(command=("llama-server",), address=ON_LOOPBACK),
            docker=Recipe(address=IN_CONTAINER),
            fallback=(sys.executable, "-m", "ai_proxy.engines.llamacpp_embedded"),
        ),
    ),
    locator=Locator(
        port=8080,
        variable="LLAMA_CPP_PORT",
        programs=("llama-server",),
        paths=("~/.local/bin/llama-server", "/usr/local/bin/llama-server", "/opt/homebrew/bin/llama-server"),
        asks=("/health", "/props"),
        is_it=is_llamacpp,
        version=lambda answers: text_at(answers, "/props", "build_info"),
    ),
)
"""While it loads, `/health` and `/v1/models` answer 503 `Loading model`; `/health` never requires a key."""
