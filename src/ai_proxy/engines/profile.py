"""The descriptor of an engine; a new engine is one file with one descriptor."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_proxy.core.abilities import EVERYTHING, Abilities, Modality, Rule, Treatment
from ai_proxy.core.ports import Engine
from ai_proxy.core.templates import Template
from ai_proxy.engines.answers import Answers
from ai_proxy.engines.listing import OPENAI_LISTING, Listing

if TYPE_CHECKING:
    import aiohttp  # a program that only reads the configuration does without

COMMON_RULES: Mapping[str, Rule] = MappingProxyType(
    {"temperature": Rule(Treatment.CLAMP, 0.0, 2.0, "OpenAI's API takes a temperature from 0 to 2")}
)
"""Rules for every engine."""


def single_choice(why: str) -> Rule:
    """Return the rule for engines that give only one answer per request."""
    return Rule(Treatment.CLAMP, 1, 1, why)


ANYTHING = Abilities("OpenAI API", EVERYTHING, COMMON_RULES, frozenset(Modality))
"""For unknown software: every request is passed on, and it refuses what it cannot do."""


@dataclass(frozen=True, slots=True)
class Locator:
    """How an engine is found on a machine, and recognized.

    Attributes:
        port: Where it listens by default.
        variable: Environment variable that says where it listens: a port, `host:port` or a URL.
        programs: Names of its program on PATH.
        paths: Where else its program may be; `~` is the user's home directory.
        asks: Paths that identify it, beside those that list its models.
        is_it: Returns whether answers are this engine's.
        version: Returns its version as answers give it.
    """

    port: int
    variable: str
    programs: tuple[str, ...]
    paths: tuple[str, ...]
    asks: tuple[str, ...]
    is_it: Callable[[Answers], bool]
    version: Callable[[Answers], str | None]


@dataclass(frozen=True, slots=True)
class Profile:
    """How an engine answers.

    Attributes:
        name: As services declare it.
        listings: Where it lists its models, the most detailed first and OpenAI's last; empty for nowhere.
        alive: Statuses of the health path that mean it can take requests.
        errors_with_200: Whether it answers errors with a status of success.
        abilities: What it can do of the APIs that clients speak.
    """

    name: str
    listings: tuple[Listing, ...] = (OPENAI_LISTING,)
    alive: Container[int] = range(200, 300)
    errors_with_200: bool = False
    abilities: Abilities = ANYTHING


@dataclass(frozen=True, slots=True)
class EngineDescriptor:
    """All that the proxy knows of an engine.

    Attributes:
        profile: How it answers.
        templates: The service types that run it.
        locator: How it is found when it runs on its own; None when it is not looked for.
        create: Makes its `Engine`; None for an `HttpEngine` with the profile.
    """

    profile: Profile
    templates: tuple[Template, ...] = ()
    locator: Locator | None = None
    create: Callable[[Profile, "aiohttp.ClientSession"], Engine] | None = None

    @property
    def name(self) -> str:
        """As services declare it."""
        return self.profile.name

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.profile.abilities.title
