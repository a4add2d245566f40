"""What an engine can do of the APIs that clients speak, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Endpoint(StrEnum):
    """A path on which clients ask a model for something; the value is the path."""

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
    """What a prompt may hold beside text."""

    IMAGE = "image"
    AUDIO = "audio"


class Treatment(StrEnum):
    """What becomes of a parameter that an engine does not take as it is; what is not listed is passed on."""

    CLAMP = "clamp"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Rule:
    """How one parameter of a request is treated.

    Attributes:
        treatment: What is done.
        low: CLAMP: the least value that is passed on.
        high: CLAMP: the greatest value that is passed on.
        why: In words, for the warning or the error: `Ollama has no logit_bias`.
    """

    treatment: Treatment
    low: float = 0.0
    high: float = 0.0
    why: str = ""


TEXT_ENDPOINTS = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can do.

    Attributes:
        title: Its name for people: `llama.cpp`.
        endpoints: Paths it answers.
        parameters: Treatment of parameters that are not passed on as they are, by name.
        modalities: What it takes beside text; a model may take less.
        any_name: Whether an engine that has one model answers for it under any name.
    """

    title: str
    endpoints: frozenset[Endpoint] = TEXT_ENDPOINTS
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    modalities: frozenset[Modality] = frozenset()
    any_name: bool = False


EVERYTHING = frozenset(Endpoint)
