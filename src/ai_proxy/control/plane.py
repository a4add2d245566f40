"""The control plane as a whole: the services, and what people ask of them."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from loguru import logger

from ai_proxy.control.events import EventBus
from ai_proxy.control.holds import Holds
from ai_proxy.control.instance import Assignment
from ai_proxy.control.listen_addresses import undeclared
from ai_proxy.control.reconcile import classify, compare
from ai_proxy.control.scheduler import Scheduler
from ai_proxy.control.supervisor import Supervisor
from ai_proxy.control.views import ModelView, ReloadReport, ServiceView, model_view, service_view
from ai_proxy.core.errors import (
    InvalidConfigError,
    RuntimeFailureError,
    RuntimeUnavailableError,
    ServiceFailedError,
    UnknownServiceError,
)
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State, backoff
from ai_proxy.core.logring import LogRing
from ai_proxy.core.ports import Clock, Engine, Recorder, Runtime
from ai_proxy.core.routing import ModelRoute, ModelTable, Offer, near_names
from ai_proxy.core.scheduling import Ask, Origin
from ai_proxy.core.service import Handle, Service, Upstream
from ai_proxy.platform.clock import wait_any, wait_event
from ai_proxy.platform.listeners import Listeners
from ai_proxy.platform.tasks import Background, cancel

AT_REST = frozenset({State.STOPPED, State.FAILED})
DOWN = frozenset({State.UNKNOWN, State.FAILING, State.FAILED})
OPEN_WAIT = 3.0
"""Longest wait, in seconds, of the start of the proxy for runtimes to say what runs."""
REMOVE_WAIT = 4.0
"""Longest wait, in seconds, of a reload for the end of a service that is no longer configured."""
CLOSE_SLACK = 10.0
"""Seconds beyond its grace that the end of the proxy waits for the end of a service."""
RECOVERY_INTERVAL = 5.0
"""Longest pause, in seconds, between two tries to ask a runtime that is away what runs."""
SAVE_WAIT = 1.0
"""Longest wait, in seconds, of a stop or start by hand until that is saved; the saving goes on."""
SWEEP_GRACE = 5.0
"""Seconds an orphan is given to end by itself."""


@dataclass(slots=True)
class Recovery:
    """How far the proxy knows what runs under one runtime.

    Attributes:
        task: Asks the runtime until it has answered once.
        asked: Set when it has answered, or failed to, for the first time.
        done: Whether it has answered; services of this runtime begin only then.
        failure: Why it has not; empty before the first failure.
    """

    task: asyncio.Task[None]
    asked: asyncio.Event
    done: bool = False
    failure: str = ""


class ControlPlane:
    """Looks after every declared service.

    Attributes:
        events: Publishes every change of state.
        offers_changed: Publishes what the services offer whenever that changes, so that requests are routed.
        scheduler: Gives out leases.
        load: Reads the configuration again: its services, and the settings that need a restart of the proxy;
            None without a configuration file.

    Args:
        clock: Returns the time.
        runtimes: How services are run, by name.
        engines: The software that answers, by name.
        recorder: Measures states and starts.
        background: Owns what goes on as long as the proxy does; by default of its own.
        holds: Remembers what was stopped by hand; None for as long as the proxy runs only.
    """

    def __init__(
        self,
        clock: Clock,
        runtimes: Mapping[str, Runtime],
        engines: Mapping[str, Engine],
        recorder: Recorder,
        background: Background | None = None,
        *,
        holds: Holds | None = None,
    ) -> None:
        self.events = EventBus(clock.wall)
        self.offers_changed = Listeners[Sequence[Offer]]("offers")
        self.scheduler = Scheduler(clock, self.events)
        self.load: Callable[[], Awaitable[tuple[Sequence[Service], tuple[str, ...]]]] | None = None
        self._clock = clock
        self._runtimes = runtimes
        self._engines = engines
        self._recorder = recorder
        self._background = background or Background(clock.sleep, clock.now, clock.wall)
        self._supervisors: dict[str, Supervisor] = {}
        self._retiring: dict[str, tuple[Supervisor, asyncio.Task[None]]] = {}
        self._recoveries: dict[str, Recovery] = {}
        self._sweeping: dict[Handle, asyncio.Task[None]] = {}
        self._declared: tuple[Service, ...] = ()
        self._found: tuple[Service, ...] = ()
        self._reloading = asyncio.Lock()
        self._holds = holds
        self._held: set[str] = set()
        self._saving = asyncio.Lock()
        self._removed = Listeners[str]("removed services")
        self._removed.add(recorder.forget)
        self.events.listen(self._record)

    def __repr__(self) -> str:
        return f"<ControlPlane [{', '.join(f'{s.id}: {s.state}' for s in self._supervisors.values())}]>"

    def _record(self, event: ServiceEvent) -> None:
        self._recorder.state(event.service_id, event.state)
        supervisor = self._supervisors.get(event.service_id)
        if event.event is Event.PROBE_OK and supervisor is not None and supervisor.load_time is not None:
            self._recorder.started(event.service_id, supervisor.load_time)

    # What runs already, from before this start of the proxy.

    async def open(self, services: Iterable[Service]) -> None:
        """Take on the declared services, adopting what already runs.

        Returns when every runtime has said what runs, or after a few seconds; what is not known by then is
        found out in the background.

        Raises:
            InvalidConfigError: A service asks for a runtime or an engine that is not here.
        """
        async with self._reloading:
            self._declared = tuple(services)
            if self._holds is not None:
                self._held = await self._holds.load()
            for assignment in [self._assign(service) for service in self._declared]:
                self._add(assignment)
            self._publish()
        until, recoveries = self._clock.now() + OPEN_WAIT, [self._recovery(name) for name in self._runtimes]
        await asyncio.gather(*(wait_event(self._clock, one.asked, until=until) for one in recoveries))

    def _recovery(self, runtime: str) -> Recovery:
        """Return how far the recovery of a runtime is; begin it when it does not run."""
        recovery = self._recoveries.get(runtime)
        if recovery is None or (recovery.task.done() and not recovery.done):
            asked = asyncio.Event()
            task = self._background.run(partial(self._recover, runtime), "recover services")
            recovery = self._recoveries[runtime] = Recovery(task, asked)
        return recovery

    async def _recover(self, runtime: str) -> None:
        """Ask a runtime what runs until it answers; then adopt what is as declared and end the rest."""
        recovery = self._recoveries[runtime]
        for tries in itertools.count(1):
            try:
                handles = await self._runtimes[runtime].handles()
                break
            except RuntimeFailureError as error:
                self._postpone(runtime, recovery, error.detail)
                if not self._of(runtime):
                    return  # nobody needs it now
            except Exception as error:
                self._postpone(runtime, recovery, f"unexpected {type(error).__name__}: {error}")
                raise  # its owner logs it and tries again
            await self._clock.sleep(min(RECOVERY_INTERVAL, backoff(tries)))
        # Nothing is awaited from here on: what is declared at this moment is what is adopted.
        recovery.done = True
        supervisors = self._of(runtime)
        findings = classify(handles, [supervisor.service for supervisor in supervisors])
        for orphan in findings.orphans:
            self._sweep(runtime, orphan)
        for supervisor in supervisors:
            supervisor.begin(findings.adopted.get(supervisor.id), outdated=supervisor.id in findings.outdated)
        recovery.asked.set()

    def _postpone(self, runtime: str, recovery: Recovery, failure: str) -> None:
        """Go on without a runtime that is away: requests for its services are refused, with the reason."""
        recovery.failure = failure
        for supervisor in self._of(runtime):
            supervisor.postpone(failure)
            self.scheduler.reconsider(supervisor.id)
        recovery.asked.set()

    def _of(self, runtime: str) -> list[Supervisor]:
        """Return the services of a runtime that have not begun."""
        supervisors = self._supervisors.values()
        return [s for s in supervisors if s.service.launch.runtime == runtime and not s.is_begun]

    def _sweep(self, runtime: str, orphan: Handle) -> None:
        """End an orphan, beside everything else."""
        logger.bind(service=orphan.service_id).info(
            "sweeping {} ({}): it matches no declared service", orphan.service_id, orphan.ref
        )

        async def sweep() -> None:
            try:
                await self._runtimes[runtime].stop(orphan, SWEEP_GRACE)
            except RuntimeFailureError as error:
                logger.bind(service=orphan.service_id).error(
                    "could not sweep {}: {}", orphan.ref, error.detail
                )

        task = self._sweeping[orphan] = self._background.run(sweep, "sweep orphans")
        task.add_done_callback(lambda _: self._sweeping.pop(orphan, None))

    async def close(self) -> None:
        """Refuse new requests and end every service that is not to go on without the proxy."""
        self.scheduler.close()
        await cancel(*(recovery.task for recovery in self._recoveries.values()))
        async with asyncio.TaskGroup() as group:
            for supervisor in self._supervisors.values():
                group.create_task(self._leave(supervisor, keep=supervisor.service.keep_on_exit))
            for supervisor, _ in self._retiring.values():
                group.create_task(self._leave(supervisor, keep=False))
        await cancel(*self._sweeping.values(), *(task for _, task in self._retiring.values()))

    async def _leave(self, supervisor: Supervisor, *, keep: bool) -> None:
        """End a service unless it is to go on; what cannot be ended in time is left for the next proxy."""
        if not keep:
            supervisor.retire("the proxy is shutting down")
            limit = supervisor.service.stop_grace + CLOSE_SLACK
            await wait_event(self._clock, supervisor.gone, until=self._clock.now() + limit)
        await supervisor.detach()

    def services(self) -> Sequence[ServiceView]:
        """Return a snapshot of every service."""
        return [self._view(supervisor) for supervisor in self._supervisors.values()]

    def service(self, service_id: str) -> ServiceView:
        """Return a snapshot of one service.

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
        found = all(service.id != declared.id for declared in self._declared)
        return Offer(service, self._engines[service.engine].abilities, supervisor.models, found)

    def owned(self) -> Sequence[tuple[Service, tuple[Upstream, ...]]]:
        """Return the services that the proxy runs itself, each with the addresses at which it runs now."""
        return [
            (one.service, one.instance.upstreams if one.instance is not None else ())
            for one in self._supervisors.values()
            if one.is_owned
        ]

    def _publish(self) -> None:
        self.offers_changed.publish(self.offers())

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
        supervisor.start(Ask(service_id, origin=Origin.OPERATOR, reason="started by hand"))
        await self._save_holds()
        return await self._until_ready(supervisor, wait)

    async def stop(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service now and hold it stopped, waiting for proof up to `wait` seconds.

        Raises:
            UnknownServiceError: It is not declared.
        """
        supervisor = self._supervisor(service_id)
        supervisor.stop()
        self.scheduler.reconsider(service_id)
        await self._save_holds()
        return await self._until_at_rest(supervisor, wait)

    async def restart(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service after its requests in flight and start it again, waiting up to `wait` seconds.

        Raises:
            UnknownServiceError: It is not declared.
            ServiceFailedError: The start failed meanwhile.
        """
        supervisor = self._supervisor(service_id)
        supervisor.restart()
        await self._save_holds()
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
        report = compare([s.declared for s in self._supervisors.values()], services)
        for service_id in report.updated:
            self._supervisors[service_id].update(assignments[service_id])
        for service_id in report.restarted:
            self._supervisors[service_id].replace(assignments[service_id])
        removals = [self._remove(self._supervisors.pop(i), farewell) for i in report.removed]
        self._held.difference_update(report.removed)
        for service_id in report.added:
            self._add_or_revive(assignments[service_id])
        self._publish()
        for service_id in (*report.added, *report.restarted):
            self._begin(self._supervisors[service_id])
        until = self._clock.now() + REMOVE_WAIT
        await asyncio.gather(*(wait_any(self._clock, removal, until=until) for removal in removals))
        return report

    def _remove(self, supervisor: Supervisor, farewell: str) -> asyncio.Task[None]:
        """Retire a service; return what waits for its end."""
        self.scheduler.remove(supervisor.id)
        supervisor.retire(farewell)
        retiring = self._background.run(partial(self._see_off, supervisor), "retire services")
        self._retiring[supervisor.id] = supervisor, retiring
        return retiring

    async def _see_off(self, supervisor: Supervisor) -> None:
        await supervisor.gone.wait()
        del self._retiring[supervisor.id]
        self._removed.publish(supervisor.id)

    def _add_or_revive(self, assignment: Assignment) -> None:
        """Take on a service; one that is retiring under its name is replaced once nothing of it runs."""
        service_id = assignment.service.id
        retiring, see_off = self._retiring.pop(service_id, (None, None))
        if see_off is not None:
            see_off.cancel()
        if retiring is None or retiring.gone.is_set():
            self._add(assignment)
            return
        retiring.revive(assignment)
        self._supervisors[service_id] = retiring
        self.scheduler.add(retiring)

    def _begin(self, supervisor: Supervisor) -> None:
        """Begin with a service, at once or as soon as its runtime has said what runs."""
        if supervisor.is_begun:
            return
        recovery = self._recovery(supervisor.service.launch.runtime)
        if recovery.done:
            supervisor.begin(outdated=any(orphan.service_id == supervisor.id for orphan in self._sweeping))
        elif recovery.failure:
            supervisor.postpone(recovery.failure)

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

    def _add(self, assignment: Assignment) -> None:
        supervisor = Supervisor(
            assignment, self._clock, self.events, self._background, self.scheduler.decide, self._publish
        )
        supervisor.held = supervisor.id in self._held
        self._supervisors[supervisor.id] = supervisor
        self.scheduler.add(supervisor)

    async def _save_holds(self) -> None:
        """Remember what was stopped by hand; that of services that are not known yet stays as it is."""
        supervisors = self._supervisors.values()
        held = {s.id for s in supervisors if s.held} | (self._held - self._supervisors.keys())
        if held != self._held:
            self._held = held
            if self._holds is not None:
                saving = self._background.run(
                    partial(self._write_holds, self._holds), "save of stops by hand"
                )
                await wait_any(self._clock, saving, until=self._clock.now() + SAVE_WAIT)

    async def _write_holds(self, holds: Holds) -> None:
        async with self._saving:
            await holds.save(self._held)

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
        raise ServiceFailedError(f"{supervisor.id} failed: {failure.detail}", log_tail=failure.log_tail)

    async def _until_at_rest(self, supervisor: Supervisor, wait: float) -> ServiceView:
        if supervisor.state not in AT_REST:
            await self._settle(supervisor, wait, AT_REST)
        if supervisor.trouble is not None:
            raise type(supervisor.trouble)(supervisor.trouble.detail)
        return self._view(supervisor)

    async def _settle(self, supervisor: Supervisor, wait: float, states: frozenset[State]) -> None:
        """Return when that service enters one of the states, or after `wait` seconds."""
        if wait <= 0:
            await asyncio.sleep(0)  # let the order be taken up, so that the answer shows it
            return
        done = asyncio.Event()

        def look(event: ServiceEvent) -> None:
            if event.service_id == supervisor.id and event.state in states:
                done.set()

        stop = self.events.listen(look)
        try:
            await wait_event(self._clock, done, until=self._clock.now() + wait)
        finally:
            stop()

    def _view(self, supervisor: Supervisor) -> ServiceView:
        waiting, reason = self.scheduler.waiting(supervisor.id), self.scheduler.wait_reason(supervisor.id)
        return service_view(supervisor, self._offer(supervisor), waiting, reason, self._clock.now())

    def _model_view(self, route: ModelRoute) -> ModelView:
        return model_view(route, self._supervisors[route.offer.service.id])
