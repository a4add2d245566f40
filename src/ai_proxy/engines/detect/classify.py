"""What an engine's answers, or their want, mean: decided without asking anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ai_proxy.core.detection import EngineState
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.catalog import PROFILES
from ai_proxy.engines.http import Profile
from ai_proxy.engines.listing import read_models

BUSY = frozenset({429, 503})
NO_KEY = frozenset({401, 403})

OURSELVES = "ai-proxy"


class Trouble(StrEnum):
    """Why there are no answers."""

    REFUSED = "refused"
    """Nobody listens."""
    NETWORK = "network"
    """Somebody listens and says nothing, or nobody can be reached."""
    GARBAGE = "garbage"
    """What comes is not HTTP."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of asking at an address.

    Attributes:
        answers: By path.
        trouble: What went wrong; None when every path was answered.
        detail: That in words.
    """

    answers: Answers = field(default_factory=dict)
    trouble: Trouble | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else there is to know for a verdict.

    Attributes:
        installed: Whether the engine's program was found.
        local: Whether it was looked for on this machine.
        slow_over_ms: Slowest answer of a healthy engine, in milliseconds.
        tries: How often it was asked.
    """

    installed: bool
    local: bool = True
    slow_over_ms: float = 1500.0
    tries: int = 1


type Classification = tuple[EngineState, str]
"""A state, and why, in words."""


def classify(profile: Profile, probed: ProbeResult, circumstances: Circumstances) -> Classification:
    """Say how an engine stands."""
    if probed.trouble is not None:
        return _without_answers(profile, probed, circumstances)
    found = identify(probed.answers)
    if found not in (None, profile.abilities.title):
        return EngineState.ERROR_API, f"{found} answers there, not {profile.abilities.title}"
    if busy := next((a for a in probed.answers.values() if a.status in BUSY), None):
        return EngineState.RUNNING_DEGRADED, f"{busy.status}: {busy.complaint}"
    models = read_models(profile.listings, probed.answers)
    if any(answer.status in NO_KEY for answer in probed.answers.values()) and not models:
        return EngineState.ERROR_API, "it wants an API key: declare it as a service with its api_key"
    if found is None:
        return EngineState.ERROR_API, f"what answers there is not {profile.abilities.title}"
    if models is None:
        return (
            EngineState.ERROR_API,
            f"it does not list its models: {_first_complaint(profile, probed.answers)}",
        )
    return _serving(latency_ms(probed.answers), len(models), circumstances)


def _without_answers(profile: Profile, probed: ProbeResult, circumstances: Circumstances) -> Classification:
    title = profile.abilities.title
    match probed.trouble:
        case Trouble.REFUSED if circumstances.local:
            return at_rest(installed=circumstances.installed), "nothing listens there"
        case Trouble.GARBAGE:
            return EngineState.ERROR_API, f"what answers there is not {title}: {probed.detail}"
        case _:
            tries = f" ({circumstances.tries} tries)" if circumstances.tries > 1 else ""
            return EngineState.ERROR_NETWORK, f"{probed.detail}{tries}"


def at_rest(*, installed: bool) -> EngineState:
    """Return the state of an engine that does not run."""
    return EngineState.INSTALLED_ONLY if installed else EngineState.ABSENT


def _serving(latency: float, models: int, circumstances: Circumstances) -> Classification:
    lists = f"lists {models} model{'' if models == 1 else 's'}"
    if latency > circumstances.slow_over_ms:
        slow = f"slow: {latency:.0f} ms to answer, over {circumstances.slow_over_ms:g} ms"
        return EngineState.RUNNING_DEGRADED, f"{slow}; {lists}"
    return EngineState.RUNNING_HEALTHY, lists


def _first_complaint(profile: Profile, answers: Answers) -> str:
    refused = (answers[listing.path] for listing in profile.listings if listing.path in answers)
    return next((answer.complaint for answer in refused), "it was not asked")


def latency_ms(answers: Answers) -> float:
    """Return the time of the slowest answer, in milliseconds; 0 without answers."""
    return max((answer.seconds for answer in answers.values()), default=0.0) * 1000


def identify(answers: Answers, profiles: Mapping[str, Profile] = PROFILES) -> str | None:
    """Return the name for people of whatever gives these answers; None when nothing tells."""
    if any(map(_is_ours, answers.values())):
        return OURSELVES
    locators = ((profile, profile.locator) for profile in profiles.values())
    known = (
        profile.abilities.title
        for profile, locator in locators
        if locator is not None and locator.is_it(answers)
    )
    return next(known, None)


def _is_ours(answer: Answer) -> bool:
    """Tell whether an ai-proxy gives this answer: its errors have a header, its models an entry of ours."""
    if "x-ai-proxy-error" in answer.headers:
        return True
    match answer.json:
        case {"data": [{"ai_proxy": _}, *_]}:
            return True
        case _:
            return False
