"""Classifies an engine by its answers, or by their absence. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from loguru import logger

from ai_proxy.core.detection import EngineState
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.listing import read_models
from ai_proxy.engines.profile import EngineDescriptor

BUSY = frozenset({429, 503})
NO_KEY = frozenset({401, 403})

OURSELVES = "ai-proxy"


class Trouble(StrEnum):
    """Why there are no answers."""

    REFUSED = "refused"
    """Nobody listens."""
    NETWORK = "network"
    """Something listens but does not answer, or the address cannot be reached."""
    GARBAGE = "garbage"
    """The answer is not HTTP."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The answers at one address.

    Attributes:
        answers: By path.
        trouble: What went wrong; None when every path was answered.
        detail: The trouble in words.
    """

    answers: Answers = field(default_factory=dict)
    trouble: Trouble | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else a classification depends on.

    Attributes:
        installed: Whether the engine's program was found.
        local: Whether the address is on this machine.
        slow_over_ms: Slowest answer of a healthy engine, in milliseconds.
        tries: How often it was asked.
    """

    installed: bool
    local: bool = True
    slow_over_ms: float = 1500.0
    tries: int = 1


class Classification(NamedTuple):
    """How an engine stands.

    Attributes:
        state: In one word.
        detail: Why, in words for people.
    """

    state: EngineState
    detail: str


def classify(
    engine: EngineDescriptor, probed: ProbeResult, answering: str | None, circumstances: Circumstances
) -> Classification:
    """Return how an engine stands.

    Args:
        engine: The engine.
        probed: The answers at its address.
        answering: The software that answers there, as `identify` returns it.
        circumstances: What else the classification depends on.
    """
    if probed.trouble is not None:
        return _without_answers(engine.title, probed, circumstances)
    if answering not in (None, engine.title):
        return Classification(EngineState.ERROR_API, f"{answering} answers there, not {engine.title}")
    if busy := next((answer for answer in probed.answers.values() if answer.status in BUSY), None):
        return Classification(EngineState.RUNNING_DEGRADED, f"{busy.status}: {busy.complaint}")
    listings = engine.profile.listings
    models = read_models(listings, probed.answers)
    if any(answer.status in NO_KEY for answer in probed.answers.values()) and not models:
        detail = "it wants an API key: declare it as a service with its api_key"
        return Classification(EngineState.ERROR_API, detail)
    if answering is None:
        return Classification(EngineState.ERROR_API, f"what answers there is not {engine.title}")
    if models is None:
        refused = (probed.answers[listing.path] for listing in listings if listing.path in probed.answers)
        reason = next((answer.complaint for answer in refused), "it was not asked")
        return Classification(EngineState.ERROR_API, f"it does not list its models: {reason}")
    lists = f"lists {len(models)} model{'' if len(models) == 1 else 's'}"
    latency, limit = latency_ms(probed.answers), circumstances.slow_over_ms
    if latency > limit:
        slow = f"slow: {latency:.0f} ms to answer, over {limit:g} ms"
        return Classification(EngineState.RUNNING_DEGRADED, f"{slow}; {lists}")
    return Classification(EngineState.RUNNING_HEALTHY, lists)


def _without_answers(title: str, probed: ProbeResult, circumstances: Circumstances) -> Classification:
    match probed.trouble:
        case Trouble.REFUSED if circumstances.local:
            return Classification(at_rest(installed=circumstances.installed), "nothing listens there")
        case Trouble.GARBAGE:
            return Classification(
                EngineState.ERROR_API, f"what answers there is not {title}: {probed.detail}"
            )
        case _:
            tries = f" ({circumstances.tries} tries)" if circumstances.tries > 1 else ""
            return Classification(EngineState.ERROR_NETWORK, f"{probed.detail}{tries}")


def at_rest(*, installed: bool) -> EngineState:
    """Return the state of an engine that does not run."""
    return EngineState.INSTALLED_ONLY if installed else EngineState.ABSENT


def latency_ms(answers: Answers) -> float:
    """Return the time of the slowest answer, in milliseconds; 0 without answers."""
    return max((answer.seconds for answer in answers.values()), default=0.0) * 1000


def identify(answers: Answers, engines: Iterable[EngineDescriptor]) -> str | None:
    """Return the title of the software that gives these answers; None when unknown."""
    if any(map(_is_ours, answers.values())):
        return OURSELVES
    return next((engine.title for engine in engines if _gives(engine, answers)), None)


def _gives(engine: EngineDescriptor, answers: Answers) -> bool:
    """Return whether answers are an engine's."""
    try:
        return engine.locator is not None and engine.locator.is_it(answers)
    except Exception as error:  # noqa: BLE001 - a plug-in that raises must not hide the other engines
        logger.opt(exception=error).error("the engine {} cannot say whether answers are its own", engine.name)
        return False


def _is_ours(answer: Answer) -> bool:
    """Return whether an ai-proxy gives this answer: its errors have a header, its models an entry of ours."""
    if "x-ai-proxy-error" in answer.headers:
        return True
    match answer.json:
        case {"data": [{"ai_proxy": _}, *_]}:
            return True
        case _:
            return False
