"""Capabilities of engines: endpoints, parameters, modalities."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Endpoint(StrEnum):
    """An inference endpoint; the value is its path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    RERANK = "/v1/rerank"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"
    TRANSLATIONS = "/v1/audio/translations"
    SPEECH = "/v1/audio/speech"
    IMAGES = "/v1/images/generations"
    IMAGE_EDITS = "/v1/images/edits"


class Modality(StrEnum):
    """Content of a prompt besides text."""

    IMAGE = "image"
    AUDIO = "audio"


class Treatment(StrEnum):
    """What the proxy does with a parameter that an engine does not accept unchanged."""

    CLAMP = "clamp"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Rule:
    """How the proxy treats one parameter of a request.

    Attributes:
        treatment: What to do with it.
        low: CLAMP: the minimum.
        high: CLAMP: the maximum.
        why: Reason, for the warning or the error: `Ollama has no logit_bias`.
    """

    treatment: Treatment
    low: float = 0.0
    high: float = 0.0
    why: str = ""


TEXT_ENDPOINTS = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})


@dataclass(frozen=True, slots=True)
class Abilities:
    """Capabilities of an engine.

    Attributes:
        title: Display name: `llama.cpp`.
        endpoints: Endpoints it serves.
        parameters: Rules by parameter name; a parameter without a rule is passed on unchanged.
        modalities: Modalities it accepts besides text; a model may accept fewer.
        any_name: Whether an engine with one model serves it under any name.
    """

    title: str
    endpoints: frozenset[Endpoint] = TEXT_ENDPOINTS
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    modalities: frozenset[Modality] = frozenset()
    any_name: bool = False


EVERYTHING = frozenset(Endpoint)
