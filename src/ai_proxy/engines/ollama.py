"""Ollama.

What it answers: `docs/api` of Ollama, "OpenAI compatibility"; and a server asked itself. It has Anthropic's
messages since 0.14 only, and the proxy translates those, so they are not listed; what cannot be translated
is listed as soon as Ollama has it.
"""

from collections.abc import Mapping

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality, Rule, Treatment
from ai_proxy.core.ports import Model
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import Recipe, Template
from ai_proxy.engines.answers import Answers, text_at
from ai_proxy.engines.listing import OPENAI_LISTING, Listing, context_length, named
from ai_proxy.engines.profile import COMMON_RULES, EngineDescriptor, Locator, Profile, single_choice

KINDS = {"completion": "chat", "embedding": "embeddings"}
MODALITIES = {"vision": Modality.IMAGE, "audio": Modality.AUDIO}


def read_tags(value: object) -> list[Model] | None:
    """Read `/api/tags`; also without the capabilities of newer versions.

    >>> read_tags({"models": [{"name": "nomic", "details": {"context_length": 2048},
    ...                        "capabilities": ["embedding"]}]})
    [Model(id='nomic', context_length=2048, modalities=frozenset(), kind='embeddings')]
    >>> read_tags({"models": [{"name": "old"}]})
    [Model(id='old', context_length=None, modalities=None, kind='')]
    """
    match value:
        case {"models": list(entries)}:
            return [_model(name, entry) for name, entry in named(entries, "name")]
        case _:
            return None


def _model(name: str, entry: Mapping[str, object]) -> Model:
    told = entry.get("capabilities")
    if not isinstance(told, list):
        return Model(name, context_length(entry))
    modalities = frozenset(modality for word, modality in MODALITIES.items() if word in told)
    kind = next((kind for word, kind in KINDS.items() if word in told), "")
    return Model(name, context_length(entry), modalities, kind)


def is_ollama(answers: Answers) -> bool:
    """Return whether these answers are Ollama's; others have the same greeting, or imitate its API."""
    root = answers.get("/")
    greets = root is not None and root.body.startswith(b"Ollama is running")
    return greets and text_at(answers, "/api/version", "version") is not None


OLLAMA = EngineDescriptor(
    profile=Profile(
        "ollama",
        listings=(Listing("/api/tags", read_tags), OPENAI_LISTING),
        abilities=Abilities(
            "Ollama",
            TEXT_ENDPOINTS | {Endpoint.RESPONSES, Endpoint.IMAGES},
            {
                **COMMON_RULES,
                "n": single_choice("Ollama gives one answer to a request"),
                "logit_bias": Rule(Treatment.DROP, why="Ollama has no logit_bias"),
            },
            frozenset({Modality.IMAGE}),
        ),
    ),
    templates=(
        Template(
            "ollama",
            "Ollama, with the models it has pulled",
            engine="ollama",
            runtime=RuntimeKind.PROCESS,
            image="ollama/ollama:latest",
            port=11434,
            health_path="/api/version",
            process=Recipe(command=("ollama", "serve"), env={"OLLAMA_HOST": "127.0.0.1:${port}"}),
            docker=Recipe(env={"OLLAMA_HOST": "0.0.0.0:${port}"}),
        ),
    ),
    locator=Locator(
        port=11434,
        variable="OLLAMA_HOST",
        programs=("ollama",),
        paths=("/usr/local/bin/ollama", "/opt/homebrew/bin/ollama", "/Applications/Ollama.app"),
        asks=("/", "/api/version"),
        is_it=is_ollama,
        version=lambda answers: text_at(answers, "/api/version", "version"),
    ),
)
"""It has no `/health`; `/` answers `Ollama is running`. A model list without models has `"data":null`."""
