"""The control plane as a whole: the services, and what people ask of them."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from loguru import logger

from ai_proxy.control.events import EventBus
from ai_proxy.control.instance import Assignment
from ai_proxy.control.listen_addresses import undeclared
from ai_proxy.control.recovery import recover
from ai_proxy.control.reload import compare
from ai_proxy.control.scheduler import Scheduler
from ai_proxy.control.supervisor import Supervisor
from ai_proxy.control.viewing import model_view, service_view
from ai_proxy.control.views import ModelView, ReloadReport, ServiceView
from ai_proxy.core.errors import (
    InvalidConfigError,
    RuntimeFailureError,
    RuntimeUnavailableError,
    ServiceFailedError,
    UnknownServiceError,
)
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import State, backoff
from ai_proxy.core.logring import LogRing
from ai_proxy.core.ports import Clock, Engine, Recorder, Runtime
from ai_proxy.core.routing import ModelRoute, ModelTable, Offer, near_names
from ai_proxy.core.service import Service, Upstream
from ai_proxy.platform.clock import wait_any
from ai_proxy.platform.tasks import cancel, spawn

AT_REST = frozenset({State.STOPPED, State.FAILED})
DOWN = frozenset({State.UNKNOWN, State.FAILING, State.FAILED})
REMOVE_WAIT = 4.0
"""Longest wait, in seconds, of a reload for the end of a service that is no longer configured."""
CLOSE_SLACK = 10.0
"""Seconds beyond its grace that the end of the proxy waits for the end of a service."""
RECOVERY_INTERVAL = 5.0
"""Longest pause, in seconds, between two tries to find out what runs under a runtime that is away."""


class ControlPlane:
    """Looks after every declared service.

    Attributes:
        events: Tells every change of state.
        scheduler: Gives out leases.
        publish: Is told what the services offer whenever that changes, so that the data plane can route.
        load: Reads the configuration anew: its services, and the settings that need a restart of the proxy;
            None without a configuration file.

    Args:
        clock: Tells the time.
        runtimes: How services are run.
        engines: The software that answers, by name.
        recorder: Is told of states and starts.
    """

    def __init__(
        self,
        clock: Clock,
        runtimes: Mapping[str, Runtime],
        engines: Mapping[str, Engine],
        recorder: Recorder,
    ) -> None:
        self.events = EventBus(clock.wall)
        self.scheduler = Scheduler(clock, self.events)
        self.publish: Callable[[Sequence[Offer]], None] = lambda _: None
        self.load: Callable[[], Awaitable[tuple[Sequence[Service], tuple[str, ...]]]] | None = None
        self._clock = clock
        self._runtimes = runtimes
        self._engines = engines
        self._recorder = recorder
        self._supervisors: dict[str, Supervisor] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._postponed: dict[str, asyncio.Task[None]] = {}
        self._declared: tuple[Service, ...] = ()
        self._found: tuple[Service, ...] = ()
        self._reloading = asyncio.Lock()

    def __repr__(self) -> str:
        return (
            f"<ControlPlane [{', '.join(f'{s.service.id}: {s.state}' for s in self._supervisors.values())}]>"
        )

    async def open(self, services: Iterable[Service]) -> None:
        """Take on the declared services, adopting what already runs.

        Raises:
            InvalidConfigError: A service asks for a runtime or an engine that is not here.
        """
        self._declared = services = tuple(services)
        for assignment in [self._assign(service) for service in services]:
            self._add(assignment)
        self._publish()
        for runtime in self._runtimes:
            try:
                await self._recover(runtime)
            except RuntimeFailureError as error:
                if any(service.launch.runtime == runtime for service in services):
                    self._postpone(runtime, error)

    async def _recover(self, runtime: str) -> None:
        """Begin with every service of a runtime, adopting what already runs."""
        mine = [s for s in self._supervisors.values() if s.service.launch.runtime == runtime]
        adopted = await recover(runtime, self._runtimes[runtime], [s.service for s in mine])
        for supervisor in mine:
            supervisor.begin(adopted.get(supervisor.service.id))

    def _postpone(self, runtime: str, error: RuntimeFailureError) -> None:
        """Go on without a runtime that is away, and begin with its services when it is back."""
        for supervisor in self._supervisors.values():
            if supervisor.service.launch.runtime == runtime:
                supervisor.postpone(error.detail)
        self._postponed[runtime] = spawn(self._recover_later(runtime), f"wait for {runtime}")

    async def _recover_later(self, runtime: str) -> None:
        for tries in itertools.count(1):
            await self._clock.sleep(min(RECOVERY_INTERVAL, backoff(tries)))
            try:
                await self._recover(runtime)
            except RuntimeFailureError:
                continue
            del self._postponed[runtime]
            return

    async def close(self) -> None:
        """Refuse new requests and end every service that is not to go on without the proxy."""
        self.scheduler.close()
        await cancel(*self._postponed.values())
        await cancel(*self._retiring)
        async with asyncio.TaskGroup() as group:
            for supervisor in self._supervisors.values():
                group.create_task(self._leave(supervisor))

    async def _leave(self, supervisor: Supervisor) -> None:
        """End a service if it is to end with the proxy; what cannot be ended is left for the next proxy."""
        if not supervisor.service.keep_on_exit:
            retiring = spawn(supervisor.retire("the proxy is shutting down"), "retire")
            limit = supervisor.service.stop_grace + CLOSE_SLACK
            await wait_any(self._clock, retiring, until=self._clock.now() + limit)
            await cancel(retiring)
        await supervisor.detach()

    def services(self) -> Sequence[ServiceView]:
        """Return every service as it stands."""
        return [self._view(supervisor) for supervisor in self._supervisors.values()]

    def service(self, service_id: str) -> ServiceView:
        """Return one service as it stands.

        Raises:
            UnknownServiceError: It is not declared.
        """
        return self._view(self._supervisor(service_id))

    def models(self) -> Sequence[ModelView]:
        """Return every model that can be asked for, those of stopped services included."""
        return [self._model_view(route) for route in ModelTable.of(self.offers()).routes.values()]

    def model(self, name: str) -> ModelView:
        """Return a model by any name that a request may say.

        Raises:
            UnknownModelError: No service answers to that name, or several do alike.
        """
        return self._model_view(ModelTable.of(self.offers()).find(name))

    def offers(self) -> Sequence[Offer]:
        """Return what the services offer."""
        return [self._offer(supervisor) for supervisor in self._supervisors.values()]

    def _offer(self, supervisor: Supervisor) -> Offer:
        service = supervisor.service
        return Offer(service, self._engines[service.engine].abilities, supervisor.models)

    def runs(self) -> Sequence[tuple[Service, tuple[Upstream, ...]]]:
        """Return every service, with the addresses at which it runs now."""
        return [(one.service, one.instance.upstreams) for one in self._supervisors.values()]

    def _publish(self) -> None:
        self.publish(self.offers())

    def logs(self, service_id: str) -> LogRing:
        """Return the last lines of a service's output.

        Raises:
            UnknownServiceError: It is not declared.
        """
        service = self._supervisor(service_id).service
        return self._runtimes[service.launch.runtime].logs(service_id)

    async def start(self, service_id: str, wait: float = 0) -> ServiceView:
        """Ask for a start by hand, and wait for it up to `wait` seconds.

        Raises:
            UnknownServiceError: It is not declared.
            ServiceFailedError: The start failed meanwhile.
        """
        supervisor = self._supervisor(service_id)
        supervisor.start(by_hand=True)
        return await self._until_ready(supervisor, wait)

    async def stop(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service now and hold it stopped, waiting for proof up to `wait` seconds.

        Raises:
            UnknownServiceError: It is not declared.
        """
        supervisor = self._supervisor(service_id)
        supervisor.stop()
        self.scheduler.reconsider(service_id)
        return await self._until_at_rest(supervisor, wait)

    async def restart(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service after its requests in flight and start it again, waiting up to `wait` seconds.

        Raises:
            UnknownServiceError: It is not declared.
            ServiceFailedError: The start failed meanwhile.
        """
        supervisor = self._supervisor(service_id)
        supervisor.restart()
        return await self._until_ready(supervisor, wait)

    async def unload(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service after its requests in flight; the next request may start it again.

        Raises:
            UnknownServiceError: It is not declared.
        """
        supervisor = self._supervisor(service_id)
        supervisor.unload()
        self.scheduler.reconsider(service_id)
        return await self._until_at_rest(supervisor, wait)

    async def reload(self) -> ReloadReport:
        """Read the configuration again and touch only what changed.

        Raises:
            InvalidConfigError: It has errors; nothing was changed.
        """
        if self.load is None:
            raise InvalidConfigError("the proxy was started without a configuration file")
        async with self._reloading:
            try:
                services, needs_restart = await self.load()
            except InvalidConfigError as error:
                logger.warning("the configuration was not reloaded, nothing was changed:\n{}", error.detail)
                raise
            report = replace(await self.apply(services), needs_restart=needs_restart)
        logger.info(
            "configuration reloaded: {} added, {} removed, {} restarted, {} updated, {} unchanged",
            *map(len, (report.added, report.removed, report.restarted, report.updated, report.unchanged)),
        )
        return report

    async def apply(self, services: Sequence[Service]) -> ReloadReport:
        """Make these the declared services; what was found beside them goes on.

        Raises:
            InvalidConfigError: One asks for a runtime or an engine that is not here; nothing was changed.
        """
        return await self._become(tuple(services), self._found, "no longer configured")

    async def discover(self, found: Sequence[Service]) -> None:
        """Make these the services that were found running; one declared under a name or address precedes."""
        async with self._reloading:
            await self._become(self._declared, tuple(found), "no longer found")

    async def _become(
        self, declared: tuple[Service, ...], found: tuple[Service, ...], farewell: str
    ) -> ReloadReport:
        services = (*declared, *undeclared(found, declared))
        assignments = {service.id: self._assign(service) for service in services}
        self._declared, self._found = declared, found
        report = compare([s.service for s in self._supervisors.values()], services)
        for service_id in report.updated:
            self._supervisors[service_id].update(assignments[service_id])
        for service_id in report.restarted:
            self._supervisors[service_id].replace(assignments[service_id])
        removed = [self._supervisors.pop(service_id) for service_id in report.removed]
        added = [self._add(assignments[service_id]) for service_id in report.added]
        self._publish()
        for supervisor in added:
            if supervisor.service.launch.runtime not in self._postponed:
                supervisor.begin(None)
        await asyncio.gather(*(self._remove(supervisor, farewell) for supervisor in removed))
        return report

    async def _remove(self, supervisor: Supervisor, farewell: str) -> None:
        service_id = supervisor.service.id
        self.scheduler.remove(service_id)
        retiring = spawn(self._retire(supervisor, farewell), f"retire {service_id}")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        await wait_any(self._clock, retiring, until=self._clock.now() + REMOVE_WAIT)

    async def _retire(self, supervisor: Supervisor, farewell: str) -> None:
        await supervisor.retire(farewell)
        self._recorder.forget(supervisor.service.id)

    def _assign(self, service: Service) -> Assignment:
        runtime = self._runtimes.get(service.launch.runtime)
        if runtime is None:
            kind, known = service.launch.runtime, ", ".join(self._runtimes)
            raise InvalidConfigError(
                f"services.{service.id}: runtime '{kind}' is not available here; use {known}"
            )
        engine = self._engines.get(service.engine)
        if engine is None:
            raise InvalidConfigError(f"services.{service.id}: engine '{service.engine}' is not known")
        return Assignment(service, runtime, engine)

    def _add(self, assignment: Assignment) -> Supervisor:
        supervisor = Supervisor(assignment, self._clock, self.events, self._recorder)
        supervisor.learned = self._publish
        self._supervisors[assignment.service.id] = supervisor
        self.scheduler.add(supervisor)
        return supervisor

    def _supervisor(self, service_id: str) -> Supervisor:
        supervisor = self._supervisors.get(service_id)
        if supervisor is None:
            raise UnknownServiceError(service_id, near_names(service_id, self._supervisors))
        return supervisor

    async def _until_ready(self, supervisor: Supervisor, wait: float) -> ServiceView:
        if not supervisor.stays_ready:
            await self._settle(supervisor, wait, DOWN | {State.READY})
        failure = supervisor.failure
        if supervisor.starts_now or supervisor.state not in DOWN:
            return self._view(supervisor)
        if failure.unavailable:
            raise RuntimeUnavailableError(failure.detail, retry_after=5)
        raise ServiceFailedError(
            f"{supervisor.service.id} failed: {failure.detail}", log_tail=failure.log_tail
        )

    async def _until_at_rest(self, supervisor: Supervisor, wait: float) -> ServiceView:
        if supervisor.state not in AT_REST:
            await self._settle(supervisor, wait, AT_REST)
        if supervisor.trouble is not None:
            raise supervisor.trouble
        return self._view(supervisor)

    async def _settle(self, supervisor: Supervisor, wait: float, states: frozenset[State]) -> None:
        """Return when that service enters one of the states, or after `wait` seconds."""
        if wait <= 0:
            await asyncio.sleep(0)  # let the order be taken up, so that the answer shows it
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(event: ServiceEvent) -> None:
            if event.service_id == supervisor.service.id and event.state in states and not done.done():
                done.set_result(None)

        stop = self.events.listen(look)
        try:
            await wait_any(self._clock, done, until=self._clock.now() + wait)
        finally:
            stop()

    def _view(self, supervisor: Supervisor) -> ServiceView:
        waiting = self.scheduler.waiting(supervisor.service.id)
        return service_view(supervisor, self._offer(supervisor), waiting, self._clock.now())

    def _model_view(self, route: ModelRoute) -> ModelView:
        return model_view(route, self._supervisors[route.offer.service.id])
