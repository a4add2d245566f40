"""LM Studio.

What it answers: its documentation of the OpenAI-compatible endpoints and of its REST API. It has Anthropic's
messages since 0.4.1 only, and the proxy translates those, so they are not listed.
"""

from collections.abc import Mapping

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality
from ai_proxy.core.ports import Model
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import Template
from ai_proxy.engines.answers import Answer, Answers, is_owned_by
from ai_proxy.engines.listing import OPENAI_LISTING, Listing, context_length, named
from ai_proxy.engines.profile import COMMON_RULES, EngineDescriptor, Locator, Profile, single_choice

KINDS = {"llm": "chat", "vlm": "chat", "embeddings": "embeddings", "embedding": "embeddings"}

UNKNOWN_PATH = "Unexpected endpoint or method"
"""The beginning of its error for an unknown path, which has status 200."""


def read_v1(value: object) -> list[Model] | None:
    """Read `/api/v1/models`, as of 0.4.

    >>> read_v1({"models": [{"key": "gemma", "type": "llm", "max_context_length": 8192,
    ...                      "capabilities": {"vision": True}, "loaded_instances": []}]})
    [Model(id='gemma', context_length=8192, modalities=frozenset({<Modality.IMAGE: 'image'>}), kind='chat')]
    """
    match value:
        case {"models": list(entries)}:
            return [_model(name, entry) for name, entry in named(entries, "key")]
        case _:
            return None


def read_v0(value: object) -> list[Model] | None:
    """Read `/api/v0/models`, as of 0.3.6.

    >>> read_v0({"data": [{"id": "nomic", "type": "embeddings", "max_context_length": 2048}]})
    [Model(id='nomic', context_length=2048, modalities=frozenset(), kind='embeddings')]
    """
    match value:
        case {"data": list(entries)}:
            return [_model(name, entry) for name, entry in named(entries, "id")]
        case _:
            return None


def _model(name: str, entry: Mapping[str, object]) -> Model:
    match entry:
        case {"type": "vlm"} | {"capabilities": {"vision": True}}:
            modalities = frozenset({Modality.IMAGE})
        case _:
            modalities = frozenset()
    return Model(name, context_length(entry), modalities, KINDS.get(str(entry.get("type")), ""))


def is_lmstudio(answers: Answers) -> bool:
    """Return whether these answers are LM Studio's."""
    return is_owned_by(answers, "organization_owner") or any(map(_is_its_refusal, answers.values()))


def _is_its_refusal(answer: Answer) -> bool:
    match answer.json:
        case {"error": str(text)}:
            return text.startswith(UNKNOWN_PATH)
        case _:
            return False


LMSTUDIO = EngineDescriptor(
    profile=Profile(
        "lmstudio",
        listings=(Listing("/api/v1/models", read_v1), Listing("/api/v0/models", read_v0), OPENAI_LISTING),
        errors_with_200=True,
        abilities=Abilities(
            "LM Studio",
            TEXT_ENDPOINTS | {Endpoint.RESPONSES},
            {**COMMON_RULES, "n": single_choice("LM Studio gives one answer to a request")},
            frozenset({Modality.IMAGE}),
        ),
    ),
    templates=(
        Template(
            "lm-studio",
            "LM Studio, which runs on its own",
            engine="lmstudio",
            runtime=RuntimeKind.EXTERNAL,
            health_path="/v1/models",
            url="http://127.0.0.1:1234",
        ),
    ),
    locator=Locator(
        port=1234,
        variable="LMSTUDIO_API_HOST",
        programs=("lms",),
        paths=("~/.lmstudio/bin/lms", "~/.cache/lm-studio/bin/lms", "/Applications/LM Studio.app"),
        asks=("/ai-proxy",),  # no path of its own: how it refuses one that is not there tells it from others
        is_it=is_lmstudio,
        version=lambda _: None,
    ),
)
"""Unknown paths answer 200 with an `error`, so its bodies count, not its statuses."""
