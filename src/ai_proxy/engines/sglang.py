"""SGLang's OpenAI-compatible server.

What it answers: `docs/basic_usage` of SGLang.
"""

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality
from ai_proxy.engines.http import COMMON_RULES, Profile

SGLANG = Profile(
    "sglang",
    owned_by="sglang",
    abilities=Abilities(
        "SGLang",
        TEXT_ENDPOINTS | {Endpoint.RESPONSES, Endpoint.RERANK, Endpoint.TRANSCRIPTIONS},
        COMMON_RULES,
        frozenset({Modality.IMAGE, Modality.AUDIO}),
    ),
)
"""It is not looked for on a machine: nothing tells where it listens but the one who started it."""
