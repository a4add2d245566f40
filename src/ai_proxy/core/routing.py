"""Routes a request to a service by the name of a model."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from ai_proxy.core.abilities import Abilities, Modality
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.core.ports import Model
from ai_proxy.core.service import Service

SCHEME = "flm://"
"""Prefix of a name that selects an engine: `flm://ollama/llama3`."""
MAX_LISTED = 2000
"""Most models of one service; each costs memory, and time whenever the routes change."""
MAX_LISTED_NAME = 500
"""Longest name of a model that a service may list, in characters."""
MAX_NAME = 200
"""Longest name that is searched for when it is not listed, in characters."""
MAX_COMPARED = 100_000
"""Most pairs of characters that are compared in search of near names: some 20 ms at most."""


def near_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the known names similar to a misspelt one, best first; of very many, not all are tried.

    >>> near_names("lama3", ["coder", "llama3", "llama2"])
    ('llama3', 'llama2')
    """
    import difflib  # slow to import, and a misspelt name is rare

    by_fold = {}
    left = MAX_COMPARED
    for candidate in known:
        left -= len(name) * len(candidate)
        if left < 0:
            break
        by_fold[candidate.casefold()] = candidate
    return tuple(by_fold[m] for m in difflib.get_close_matches(name.casefold(), by_fold, n=count, cutoff=0.6))


def offerable(listed: Sequence[Model]) -> tuple[tuple[Model, ...], str]:
    """Return the models of a list that are offered, and in words which are not; empty when all are.

    >>> offerable([Model("a"), Model("b" * 501)])[1]
    '1 with a name of more than 500 characters'
    """
    models = [model for model in listed if len(model.id) <= MAX_LISTED_NAME]
    omitted = []
    if len(models) > MAX_LISTED:
        omitted.append(f"only the first {MAX_LISTED} are")
    if long := sum(len(model.id) > MAX_LISTED_NAME for model in listed):
        omitted.append(f"{long} with a name of more than {MAX_LISTED_NAME} characters")
    return tuple(models[:MAX_LISTED]), "; ".join(omitted)


@dataclass(frozen=True, slots=True)
class Offer:
    """The models that a service offers.

    Attributes:
        service: The service.
        abilities: Abilities of its engine.
        listed: Models that its engine listed when it was last ready; empty before.
        found: Whether the service was detected; declared services take precedence.
        by_name: The listed models by name.
    """

    service: Service
    abilities: Abilities
    listed: tuple[Model, ...] = ()
    found: bool = False
    by_name: Mapping[str, Model] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {model.id: model for model in self.listed})

    def find(self, name: str) -> Model | None:
        """Return the model of that name in the engine's list; None when it lists none."""
        return self.by_name.get(name)

    def target(self, name: str) -> str:
        """Return the engine's name of the model that clients call `name`.

        For an engine with one model, that is its model, whatever clients call it; for an engine that never
        listed its models, it is the name itself.
        """
        alias = self.service.aliases.get(name)
        if alias is not None or self.find(name):
            return alias or name
        return self.listed[0].id if len(self.listed) == 1 and not self.abilities.any_name else name

    def declares(self, name: str) -> bool:
        """Return whether `name`, in `service/name`, is declared as a model of this service."""
        service = self.service
        return name in service.models or name in service.aliases or name == service.id

    def knows(self, name: str) -> bool:
        """Return whether `name`, in `service/name`, is a model of this service."""
        return self.declares(name) or self.find(name) is not None

    @property
    def is_unknown(self) -> bool:
        """Whether its models are unknown: none are declared, and its engine has listed none yet."""
        return not (self.listed or self.service.models or self.service.aliases)

    def may_know(self, name: str) -> bool:
        """Return whether `name`, in `service/name`, may be one of its models: before it lists any, each may.

        So the first request to a service can start it, with any model that the client knows it to have.
        """
        return self.knows(name) or not self.listed


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """The route to a model.

    Attributes:
        name: Name of the model, as clients know it.
        offer: The service that has it.
        target: Name of the model in its engine.
        names: The names by which a key may allow the model. The target alone is one of them only if it
            selects the same service: else, an engine that accepts any name would get every other's models.
    """

    name: str
    offer: Offer
    target: str
    names: tuple[str, ...]

    @property
    def model(self) -> Model | None:
        """The model in the engine's list; None when it is not known."""
        listed = self.offer.listed
        return listed[0] if len(listed) == 1 else self.offer.find(self.target)

    @property
    def modalities(self) -> frozenset[Modality]:
        """Modalities the model accepts besides text; those of its engine when the model lists none."""
        model = self.model
        listed = model.modalities if model is not None else None
        return self.offer.abilities.modalities if listed is None else listed


class Claim(IntEnum):
    """How strongly a service claims a name; the strongest claim wins."""

    FOUND = 1
    """Listed by a detected engine, which any user of the machine may have started."""
    LISTED = 2
    ID = 3
    DECLARED = 4


def claims(offer: Offer) -> Iterator[tuple[str, Claim]]:
    """Yield the model names of a service that are known now."""
    service = offer.service
    if service.models or service.aliases:
        yield from ((name, Claim.DECLARED) for name in dict.fromkeys((*service.models, *service.aliases)))
        return
    yield service.id, Claim.ID
    listed = Claim.FOUND if offer.found else Claim.LISTED
    yield from ((model.id, listed) for model in offer.listed if model.id != service.id)


def names_another(name: str, service_id: str, services: Container[str]) -> bool:
    """Return whether a listed name selects another service, or an engine, instead of a model.

    >>> [names_another(name, "a", {"a", "b"}) for name in ("b", "b/m", "flm://vllm/m", "a/m", "org/m")]
    [True, True, True, False, False]
    """
    first = name.partition("/")[0]
    return name.startswith(SCHEME) or (first != service_id and first in services)


@dataclass(frozen=True, slots=True)
class ModelTable:
    """An immutable snapshot of the routes to all models.

    Attributes:
        routes: Routes by name, in the order of the services.
        contested: Names that several services claim equally, with those services.
        offers: Offers by service.
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
                if claim >= Claim.ID or not names_another(name, offer.service.id, by_id):
                    claimed.setdefault(name, {}).setdefault(claim, []).append(offer)
        best = {name: by_claim[max(by_claim)] for name, by_claim in claimed.items()}
        sole = {name: found[0] for name, found in best.items() if len(found) == 1}
        return cls(
            {n: _route(n, one, n, leads_here=sole.get(one.target(n)) is one) for n, one in sole.items()},
            {n: tuple(offer.service.id for offer in found) for n, found in best.items() if len(found) > 1},
            by_id,
        )

    def find(self, name: str) -> ModelRoute:
        """Return the route to a model by its name, `service/model` or `flm://engine/model`.

        Raises:
            UnknownModelError: No service has that model, or several claim it equally.
        """
        route = self.routes.get(name)
        if route is not None:
            return route
        if len(name) > MAX_NAME:
            raise UnknownModelError(name)  # searching near names would take long
        if name.startswith(SCHEME):
            return self._find_by_engine(name)
        service_id, slash, rest = name.partition("/")
        offer = self.offers.get(service_id)
        if slash and rest and offer is not None and offer.may_know(rest):
            return self._route(name, offer, rest)
        raise self._unknown(name)

    def _find_by_engine(self, name: str) -> ModelRoute:
        engine, _, rest = name.removeprefix(SCHEME).partition("/")
        meant = [o for o in self.offers.values() if engine in (o.service.engine, o.service.id)]
        # A service of unknown models may have it too: another's list must not take the name from it.
        offers = (
            [o for o in meant if o.declares(rest)]
            or [o for o in meant if rest and (o.is_unknown or o.knows(rest))]
            or [o for o in meant if rest and o.may_know(rest)]
        )
        if len(offers) == 1 and offers[0].may_know(rest):
            return self._route(name, offers[0], rest)
        if len(offers) > 1:
            raise UnknownModelError(name, among=[f"{offer.service.id}/{rest}" for offer in offers])
        raise self._unknown(name)

    def _route(self, name: str, offer: Offer, rest: str) -> ModelRoute:
        sole = self.routes.get(offer.target(rest))
        return _route(name, offer, rest, leads_here=sole is not None and sole.offer is offer)

    def _unknown(self, name: str) -> UnknownModelError:
        if name in self.contested:
            return UnknownModelError(name, among=[f"{service}/{name}" for service in self.contested[name]])
        return UnknownModelError(name, near=near_names(name, [*self.routes, *self.contested]))


def _route(name: str, offer: Offer, model: str, *, leads_here: bool) -> ModelRoute:
    """Return a route.

    Args:
        name: As clients say it.
        offer: The service.
        model: The part of the name that the service is asked for.
        leads_here: Whether its target, as a name of its own, leads to the same service.
    """
    target = offer.target(model)
    names = [name, f"{offer.service.id}/{target}"]
    if leads_here or offer.declares(target):
        names.append(target)
    return ModelRoute(name, offer, target, tuple(names))
