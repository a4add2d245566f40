"""A control plane that does as it is told, for tests of the API and of the command line."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ai_proxy.control.events import EventBus
from ai_proxy.control.views import ModelView, ReloadReport, ServiceView
from ai_proxy.core.abilities import Abilities
from ai_proxy.core.errors import ProxyError, UnknownServiceError
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.logring import LogRing
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import ModelRoute, ModelTable, Offer, near_names
from ai_proxy.core.service import ExternalLaunch, RuntimeKind, Service, StartPolicy
from ai_proxy.testing.fakes import FakeClock


def view(service_id: str, state: State = State.STOPPED, **facts: object) -> ServiceView:
    """Return a service's view; `facts` replace those of a llama.cpp that has never run."""
    plain = ServiceView(
        id=service_id,
        type="llama-cpp-server",
        engine="llamacpp",
        runtime=RuntimeKind.PROCESS,
        start=StartPolicy.ON_DEMAND,
        state=state,
        reason="not asked for yet",
        since=1_700_000_000.0,
        held=False,
        models=(service_id,),
        upstreams=(),
        ref=None,
        in_flight=0,
        waiting=0,
        starts=0,
        failures=0,
        failure="",
        exit_code=None,
        log_tail=(),
        retry_in=0.0,
        load_time=None,
        idle_stop_in=None,
    )
    return replace(plain, **facts)  # type: ignore[arg-type]


class FakePlane:
    """Services that are ready as soon as they are told to be, and stopped as soon.

    Attributes:
        reload_result: What a reload returns, or raises.
        start_error: Raised by a start that is waited for.
        ready: A start that is waited for is ready when this is set; it is, unless a test clears it.
        abilities: Of the services' engines, by engine; of one that is not told, those of any engine.
        listed: What the services' engines list, by service.
    """

    def __init__(self, *views: ServiceView) -> None:
        self.events = EventBus(FakeClock().wall)
        self.reload_result: ReloadReport | Exception = ReloadReport()
        self.start_error: ProxyError | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.abilities: dict[str, Abilities] = {}
        self.listed: dict[str, tuple[Model, ...]] = {}
        self._views = {one.id: one for one in views}
        self._logs = {one.id: LogRing() for one in views}

    def services(self) -> Sequence[ServiceView]:
        """Return every service."""
        return list(self._views.values())

    def service(self, service_id: str) -> ServiceView:
        """Return one service."""
        if service_id not in self._views:
            raise UnknownServiceError(service_id, near_names(service_id, self._views))
        return self._views[service_id]

    def models(self) -> Sequence[ModelView]:
        """Return every model that can be asked for."""
        return [self._model(route) for route in ModelTable.of(self.offers()).routes.values()]

    def model(self, name: str) -> ModelView:
        """Return a model by any name that a request may say."""
        return self._model(ModelTable.of(self.offers()).find(name))

    def offers(self) -> Sequence[Offer]:
        """Return what the services offer: the names of their views, and what their engines list."""
        return [self._offer(one) for one in self._views.values()]

    def _offer(self, one: ServiceView) -> Offer:
        service = Service(one.id, one.type, one.engine, ExternalLaunch(()), "hash", models=one.models)
        return Offer(
            service, self.abilities.get(one.engine, Abilities(one.engine)), self.listed.get(one.id, ())
        )

    def _model(self, route: ModelRoute) -> ModelView:
        one, model = self.service(route.offer.service.id), route.model
        return ModelView(
            name=route.name,
            service_id=one.id,
            engine=one.engine,
            state=one.state,
            target=route.target,
            context_length=model.context_length if model else None,
            kind=model.kind if model else "",
            since=one.since,
            names=route.names,
        )

    def set(self, service_id: str, event: Event, **facts: object) -> ServiceView:
        """Change a service's facts, and tell so on the event bus."""
        self._views[service_id] = replace(self._views[service_id], **facts)  # type: ignore[arg-type]
        after = self._views[service_id]
        self.events.publish(service_id, event, after.state, after.reason)
        return after

    async def start(self, service_id: str, wait: float = 0) -> ServiceView:
        """Start it."""
        before = self.service(service_id)
        if before.state is State.READY:
            return before
        self.set(service_id, Event.START, state=State.STARTING, starts=before.starts + 1, held=False)
        if wait > 0:
            if self.start_error is not None:
                raise self.start_error
            await asyncio.wait_for(self.ready.wait(), wait)
            self.set(service_id, Event.PROBE_OK, state=State.READY, upstreams=("http://127.0.0.1:9",))
        return self.service(service_id)

    async def stop(self, service_id: str, wait: float = 0) -> ServiceView:
        """Hold it stopped; without a wait it is left stopping."""
        self.service(service_id)
        return self.set(service_id, Event.STOP, state=State.STOPPED if wait else State.STOPPING, held=True)

    async def restart(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop and start it."""
        self.service(service_id)
        self.set(service_id, Event.STOP, state=State.STOPPED)
        return await self.start(service_id, wait)

    async def unload(self, service_id: str, wait: float = 0) -> ServiceView:
        """Free it; without a wait it is left draining."""
        self.service(service_id)
        return self.set(service_id, Event.DRAIN, state=State.STOPPED if wait else State.DRAINING)

    def logs(self, service_id: str) -> LogRing:
        """Return its output."""
        self.service(service_id)
        return self._logs[service_id]

    async def reload(self) -> ReloadReport:
        """Return or raise what the test wants."""
        if isinstance(self.reload_result, Exception):
            raise self.reload_result
        return self.reload_result
