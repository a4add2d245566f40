"""Which service a request is for, by the name of a service or of a model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from ai_proxy.core.abilities import Abilities, Modality
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.core.ports import Model
from ai_proxy.core.service import Service

SCHEME = "flm://"
"""Begins a name that says which engine is meant: `flm://ollama/llama3`."""
MAX_NAME = 200
"""Longest name that is looked for where it is not listed, in characters."""


def near_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the known names that look like a misspelt one, best first.

    >>> near_names("lama3", ["coder", "llama3", "llama2"])
    ('llama3', 'llama2')
    """
    import difflib  # slow to import, and a misspelt name is rare

    by_fold = {candidate.casefold(): candidate for candidate in known}
    return tuple(by_fold[m] for m in difflib.get_close_matches(name.casefold(), by_fold, n=count, cutoff=0.6))


@dataclass(frozen=True, slots=True)
class Offer:
    """What a service has to offer to those who ask for a model.

    Attributes:
        service: Who answers.
        abilities: Of its engine.
        listed: Models its engine listed when it was last ready; empty before.
    """

    service: Service
    abilities: Abilities
    listed: tuple[Model, ...] = ()

    def find(self, name: str) -> Model | None:
        """Return a model that the engine lists."""
        return next((model for model in self.listed if model.id == name), None)

    def target(self, name: str) -> str:
        """Return what the engine calls what clients call `name`.

        An engine with one model is asked for that one, whatever clients call it; an engine that has never
        listed its models is asked for the name itself.
        """
        alias = self.service.aliases.get(name)
        if alias is not None or self.find(name):
            return alias or name
        return self.listed[0].id if len(self.listed) == 1 and not self.abilities.any_name else name

    def knows(self, name: str) -> bool:
        """Return whether a name, given together with this service's own, is one of its models."""
        service = self.service
        declared = name in service.models or name in service.aliases or name == service.id
        return declared or self.find(name) is not None

    def may_know(self, name: str) -> bool:
        """Return whether it can be one: an engine that has never run has not listed its models."""
        return not self.listed or self.knows(name)


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """Where a model is.

    Attributes:
        name: As clients say it.
        offer: Who answers.
        target: What the engine is to be asked for.
    """

    name: str
    offer: Offer
    target: str

    @property
    def names(self) -> tuple[str, ...]:
        """By which a key may be allowed to ask for it."""
        return self.name, self.target, f"{self.offer.service.id}/{self.target}"

    @property
    def model(self) -> Model | None:
        """What the engine says of it; None when that is not known."""
        listed = self.offer.listed
        return listed[0] if len(listed) == 1 else self.offer.find(self.target)

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it takes beside text, as it says itself, else as its engine does."""
        model = self.model
        listed = model.modalities if model is not None else None
        return self.offer.abilities.modalities if listed is None else listed


class Claim(IntEnum):
    """How strongly a service claims a name; the strongest gets it."""

    LISTED = 1
    ID = 2
    DECLARED = 3


def claims(offer: Offer) -> Iterator[tuple[str, Claim]]:
    """Yield the names a service answers to, as far as they are known now."""
    service = offer.service
    if service.models or service.aliases:
        yield from ((name, Claim.DECLARED) for name in dict.fromkeys((*service.models, *service.aliases)))
        return
    yield service.id, Claim.ID
    yield from ((model.id, Claim.LISTED) for model in offer.listed if model.id != service.id)


@dataclass(frozen=True, slots=True)
class ModelTable:
    """An immutable snapshot of which model is where.

    Attributes:
        routes: By the name that clients say, in the order of the services.
        contested: Names that several services claim alike, with those services.
        offers: By service.
    """

    routes: Mapping[str, ModelRoute] = field(default_factory=dict)
    contested: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offers: Mapping[str, Offer] = field(default_factory=dict)

    @classmethod
    def of(cls, offers: Iterable[Offer]) -> Self:
        """Build a snapshot."""
        by_id = {offer.service.id: offer for offer in offers}
        claimed: dict[str, dict[Claim, list[Offer]]] = {}
        for offer in by_id.values():
            for name, claim in claims(offer):
                claimed.setdefault(name, {}).setdefault(claim, []).append(offer)
        best = {name: by_claim[max(by_claim)] for name, by_claim in claimed.items()}
        return cls(
            {n: ModelRoute(n, found[0], found[0].target(n)) for n, found in best.items() if len(found) == 1},
            {n: tuple(offer.service.id for offer in found) for n, found in best.items() if len(found) > 1},
            by_id,
        )

    def find(self, name: str) -> ModelRoute:
        """Return where a model is: by its name, `service/model` or `flm://engine/model`.

        Raises:
            UnknownModelError: No service answers to that name, or several do alike.
        """
        route = self.routes.get(name)
        if route is not None:
            return route
        if len(name) > MAX_NAME:
            raise UnknownModelError(name)  # near names would take long to find
        if name.startswith(SCHEME):
            return self._find_by_engine(name)
        service_id, slash, rest = name.partition("/")
        offer = self.offers.get(service_id)
        if slash and rest and offer is not None and offer.may_know(rest):
            return ModelRoute(name, offer, offer.target(rest))
        raise self._unknown(name)

    def _find_by_engine(self, name: str) -> ModelRoute:
        engine, _, rest = name.removeprefix(SCHEME).partition("/")
        meant = [o for o in self.offers.values() if engine in (o.service.engine, o.service.id)]
        offers = [o for o in meant if o.knows(rest)] or [o for o in meant if rest and o.may_know(rest)]
        if len(offers) == 1:
            return ModelRoute(name, offers[0], offers[0].target(rest))
        if offers:
            raise UnknownModelError(name, among=[f"{offer.service.id}/{rest}" for offer in offers])
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownModelError:
        if name in self.contested:
            return UnknownModelError(name, among=[f"{service}/{name}" for service in self.contested[name]])
        return UnknownModelError(name, near=near_names(name, [*self.routes, *self.contested]))
