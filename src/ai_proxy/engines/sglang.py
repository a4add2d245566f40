"""SGLang's OpenAI-compatible server.

What it answers: `docs/basic_usage` of SGLang.
"""

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import IN_CONTAINER, ON_LOOPBACK, Recipe, Template
from ai_proxy.engines.profile import COMMON_RULES, EngineDescriptor, Profile

SGLANG = EngineDescriptor(
    profile=Profile(
        "sglang",
        abilities=Abilities(
            "SGLang",
            TEXT_ENDPOINTS | {Endpoint.RESPONSES, Endpoint.RERANK, Endpoint.TRANSCRIPTIONS},
            COMMON_RULES,
            frozenset({Modality.IMAGE, Modality.AUDIO}),
        ),
    ),
    templates=(
        Template(
            "sglang",
            "SGLang's OpenAI server",
            engine="sglang",
            runtime=RuntimeKind.PROCESS,
            image="lmsysorg/sglang:latest",
            port=30000,
            health_path="/health",
            process=Recipe(command=("python3", "-m", "sglang.launch_server"), address=ON_LOOPBACK),
            docker=Recipe(command=("python3", "-m", "sglang.launch_server"), address=IN_CONTAINER),
        ),
    ),
)
"""Not detected: it has no usual port."""
