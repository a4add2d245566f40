"""How engines list their models, and what they tell of each."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ai_proxy.core.abilities import Modality
from ai_proxy.core.ports import Model
from ai_proxy.engines.answers import Answer, parse_json

type Reader = Callable[[object], list[Model] | None]
"""Reads a list of models; None when it does not have the form."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One of the ways in which an engine lists its models.

    Attributes:
        path: Where it does.
        read: Reads what it says there.
    """

    path: str
    read: Reader


def read_models(listings: Iterable[Listing], answers: Mapping[str, Answer]) -> list[Model] | None:
    """Return the models of the first list that was given in its form; None when there is none."""
    for listing in listings:
        answer = answers.get(listing.path)
        models = listing.read(answer.json) if answer is not None and answer.status == 200 else None
        if models is not None:
            return models
    return None


def parse_models(body: bytes) -> list[Model]:
    """Return the models of a list in OpenAI's form, leaving out what is malformed.

    >>> parse_models(b'{"object":"list","data":[{"id":"a","max_model_len":512},{"id":""},7]}')
    [Model(id='a', context_length=512, modalities=None, kind='')]
    >>> parse_models(b'{"object":"list","data":null}')
    []
    """
    return read_openai(parse_json(body)) or []


def read_openai(value: object) -> list[Model] | None:
    """Read a list in OpenAI's form; Ollama has `"data":null` where it has no models."""
    match value:
        case {"data": list(entries)}:
            return [
                Model(name, context_length(entry), _input_modalities(entry))
                for name, entry in named(entries, "id")
            ]
        case {"data": None}:
            return []
        case _:
            return None


def named(entries: Iterable[object], key: str) -> Iterable[tuple[str, dict[str, object]]]:
    """Yield the entries that have a name under that key, with it."""
    for entry in entries:
        if isinstance(entry, dict) and isinstance(name := entry.get(key), str) and name:
            yield name, entry


def context_length(entry: object) -> int | None:
    """Look where vLLM, LM Studio, OpenRouter, Ollama and llama.cpp put it; what is loaded comes first."""
    match entry:
        case (
            {"max_model_len": int(length)}
            | {"loaded_instances": [{"config": {"context_length": int(length)}}, *_]}
            | {"loaded_context_length": int(length)}
            | {"max_context_length": int(length)}
            | {"context_length": int(length)}
            | {"details": {"context_length": int(length)}}
            | {"meta": {"n_ctx": int(length)}}
            | {"meta": {"n_ctx_train": int(length)}}
        ):
            return length
        case _:
            return None


def _input_modalities(entry: object) -> frozenset[Modality] | None:
    """Look where llama.cpp and OpenRouter put them."""
    match entry:
        case {"architecture": {"input_modalities": list(names)}}:
            return frozenset(modality for modality in Modality if modality in names)
        case _:
            return None


OPENAI_LISTING = Listing("/v1/models", read_openai)
