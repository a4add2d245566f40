"""Reads the lists of models that engines give."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from ai_proxy.core.abilities import Modality
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import MAX_LISTED
from ai_proxy.engines.answers import Answer

MAX_READ = MAX_LISTED + 1
"""Most models read from one list: one more than is offered, which shows that there are too many."""

MAX_CONTEXT = 1_000_000_000
"""Longest plausible context, in tokens."""

type Reader = Callable[[object], list[Model] | None]
"""Reads a list of models; None when the value has another format."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A path on which an engine lists its models.

    Attributes:
        path: The path.
        read: Reads the answer.
    """

    path: str
    read: Reader


def read_models(listings: Iterable[Listing], answers: Mapping[str, Answer]) -> list[Model] | None:
    """Return the models of the first list that can be read; None when there is none."""
    for listing in listings:
        answer = answers.get(listing.path)
        models = listing.read(answer.json) if answer is not None and answer.status == 200 else None
        if models is not None:
            return models
    return None


def read_openai(value: object) -> list[Model] | None:
    """Read a list in OpenAI's format; Ollama has `"data":null` where it has no models."""
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


def named(entries: Iterable[object], key: str) -> Iterator[tuple[str, dict[str, object]]]:
    r"""Yield the entries that have a usable name under that key, with it; at most `MAX_READ`.

    >>> list(named([{"id": "a"}, {"id": "a"}, {"id": ""}, {"id": "line\nbreak"}, 7], "id"))
    [('a', {'id': 'a'})]
    """
    seen: set[str] = set()
    for entry in entries:
        name = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(name, str) and name and name.isprintable() and name not in seen:
            seen.add(name)
            yield name, cast("dict[str, object]", entry)
            if len(seen) == MAX_READ:
                return


def context_length(entry: object) -> int | None:
    """Return the context length as vLLM, LM Studio, OpenRouter, Ollama or llama.cpp gives it.

    >>> context_length({"meta": {"n_ctx": 512}}), context_length({"max_model_len": -1})
    (512, None)
    """
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
            return length if 0 < length <= MAX_CONTEXT and length is not True else None
        case _:
            return None


def _input_modalities(entry: object) -> frozenset[Modality] | None:
    """Return the modalities as llama.cpp or OpenRouter gives them."""
    match entry:
        case {"architecture": {"input_modalities": list(names)}}:
            return frozenset(modality for modality in Modality if modality in names)
        case _:
            return None


OPENAI_LISTING = Listing("/v1/models", read_openai)
