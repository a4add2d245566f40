"""One task per service: drives it through its life, and is the only writer of its state."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from ai_proxy.control.events import EventBus
from ai_proxy.control.instance import Assignment, Instance, end
from ai_proxy.control.intent import Ending, Intent
from ai_proxy.core.errors import ProxyError, RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.lifecycle import RUNNING, TRANSITIONS, Event, State, backoff, count_failure, transition
from ai_proxy.core.placement import AS_DECLARED
from ai_proxy.core.ports import Clock, Model, Probe
from ai_proxy.core.routing import offerable
from ai_proxy.core.scheduling import Ask, Decision, Origin, Refuse, Start, Wait, idle_deadline
from ai_proxy.core.service import Handle, Service, StartPolicy
from ai_proxy.platform.clock import wait_event
from ai_proxy.platform.tasks import Background, cancel, spawn

MAX_WORDS = 200
"""Characters of a log line that are put into a reason."""
LOG_TAIL = 50
"""Log lines kept with a failure."""
PROBE_INTERVALS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between the probes of a loading service: often at first, since small models load at once."""
PROBE_LIMIT = 5.0
"""Longest wait for one probe, in seconds."""
LAST_PROBE = 1.0
"""Timeout of one more probe, in seconds, after the proxy itself was paused beyond the deadline of a start."""
LATE = 0.5
"""Seconds past the deadline of a start after which the proxy itself must have been paused."""
WATCH_INTERVAL = 10.0
"""Seconds between two health checks of a service that runs by itself."""
WATCH_FAILURES = 3
"""Failed health checks in a row after which it counts as gone."""
MAX_RETRY = 30.0
"""Longest pause, in seconds, between two looks at a failed service that runs by itself."""
_ON_ITS_WAY = frozenset({State.STARTING, State.LOADING, State.READY})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a service failed last.

    Attributes:
        detail: The reason, without what the backend wrote: clients are told of it.
        last_words: The last line that the backend wrote, to append to the reason.
        exit_code: Of its process; None when unknown.
        log_tail: Its last log lines.
        unavailable: Whether the runtime could not be reached.
    """

    detail: str = ""
    last_words: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    unavailable: bool = False


class Supervisor:
    """Drives one service; one method per state, each returning the event that ends it, and why.

    What is wanted (`start`, `stop`, ...) is only noted and carried out by the task. The attributes are for
    others to read.

    Args:
        assignment: The service, and what runs it.
        clock: Returns the time.
        events: Publishes every change of the state.
        background: Owns the task.
        decide: Returns what the scheduler says to an ask; every start is asked for.
        learned: Called when the engine lists other models.
    """

    def __init__(
        self,
        assignment: Assignment,
        clock: Clock,
        events: EventBus,
        background: Background,
        decide: "Callable[[Supervisor, Ask], Decision]",
        learned: Callable[[], None],
    ) -> None:
        self.assignment = assignment
        self.clock = clock
        self.state = State.UNKNOWN
        self.reason = "the proxy has just started"
        self.since = clock.now()
        self.since_wall = self.added = clock.wall()
        self.instance: Instance | None = None
        self.serving: Instance | None = None
        self.models: tuple[Model, ...] = ()
        self.held = False
        self.starts = 0
        self.failures = 0
        self.failure = Failure()
        self.trouble: RuntimeFailureError | None = None
        self.progress = ""
        self.retry_at = 0.0
        self.load_time: float | None = None
        self._events = events
        self._background = background
        self._decide = decide
        self._learned = learned
        self._intent = Intent()
        self._began = clock.now()
        self.progressed = 0.0
        self._placement = AS_DECLARED
        self._adopted: Handle | None = None
        self._outdated = False
        self._launching: asyncio.Task[Handle] | None = None
        self._task: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor [{self.id}: {self.state}, {self.in_flight} in flight]>"

    @property
    def service(self) -> Service:
        """The service as its running instance was declared."""
        return self.assignment.service

    @property
    def declared(self) -> Service:
        """The service as it is declared now, which it becomes once its instance is replaced."""
        return (self._intent.next or self.assignment).service

    @property
    def id(self) -> str:
        """The service's name."""
        return self.assignment.service.id

    @property
    def is_owned(self) -> bool:
        """Whether the proxy starts and ends it; else it runs by itself."""
        return self.assignment.runtime.capabilities.owns

    @property
    def _has_exited(self) -> bool:
        return self.instance is not None and self.instance.watching.done()

    @property
    def is_begun(self) -> bool:
        """Whether its task runs."""
        return self._task is not None

    @property
    def in_flight(self) -> int:
        """Leases held on the running instance."""
        return self.instance.in_flight if self.instance is not None else 0

    @property
    def stays_ready(self) -> bool:
        """Whether it is ready, and nobody has asked for its end."""
        return self.state is State.READY and self._intent.ending is Ending.NONE

    @property
    def starts_now(self) -> bool:
        """Whether a start is asked for after a failure, which says nothing about that start."""
        return self.state is State.FAILED and self._intent.start is not None

    # What is wanted: noted here, carried out by the task.

    def start(self, ask: Ask) -> None:
        """Note that a start is asked for; by hand it also ends a hold and a back-off."""
        if ask.origin is Origin.OPERATOR:
            self.held = False
            self.retry_at = 0.0
            self.failures = 0
        if self.state not in _ON_ITS_WAY or self._intent.ending is not Ending.NONE:
            self._intent.start = ask
        self._intent.news.set()

    def stop(self) -> None:
        """End it now and hold it stopped until it is started by hand."""
        self.held = True
        self._intent.start = None
        self._intent.end(Ending.NOW, "stopped by hand")

    def unload(self, reason: str = "unloaded by hand") -> None:
        """End it once the requests in flight are done; the next request may start it again."""
        self._intent.start = None
        self._intent.end(Ending.DRAIN, reason)

    def restart(self, reason: str = "restarted by hand") -> None:
        """End it once the requests in flight are done, then start it again."""
        self._intent.end(Ending.DRAIN, reason)
        self.start(Ask(self.id, origin=Origin.OPERATOR, reason=reason))

    def update(self, assignment: Assignment) -> None:
        """Take a declaration that differs only in what needs no restart."""
        if self._intent.next is not None:
            self._intent.next = assignment
            return
        self.assignment = assignment
        if self.instance is not None:
            self.instance.service = assignment.service
        self._intent.news.set()

    def replace(self, assignment: Assignment) -> None:
        """Take a declaration that a running instance does not match; one that runs is replaced."""
        reason = "its configuration changed"
        if not self.is_begun:
            self.assignment = assignment
            return
        self._intent.next = assignment
        self.retry_at = 0.0
        if self.state in RUNNING and not self.held:
            self._intent.start = Ask(self.id, origin=Origin.OPERATOR, reason=reason)
        self._intent.end(Ending.DRAIN, reason)

    def retire(self, reason: str) -> None:
        """End it for good; `gone` is set once there is proof that nothing runs."""
        self._intent.retired = True
        self._intent.start = None
        self._intent.next = None
        self._intent.end(Ending.NOW, reason)
        if not self.is_begun:
            self.gone.set()

    def revive(self, assignment: Assignment) -> None:
        """Take a new declaration while it is retiring; it starts only once the old instance is gone."""
        self._intent.retired = False
        self._intent.next = assignment
        self.held = False

    # The life of the task.

    def postpone(self, reason: str) -> None:
        """Note why the task cannot begin yet: its runtime cannot be asked what runs."""
        self.reason = reason
        self.failure = Failure(reason, unavailable=True)

    def begin(self, adopted: Handle | None = None, *, outdated: bool = False) -> None:
        """Start the task.

        Args:
            adopted: What was found running as declared.
            outdated: Whether something of it runs that is not as declared, and is to end first.
        """
        self.failure = Failure()
        self._adopted, self._outdated = adopted, outdated
        self._task = self._background.run(self._run, "supervisor")

    async def detach(self) -> None:
        """Stop looking after the service and leave it running."""
        await cancel(self._task)
        await cancel(self._launching)
        if self.instance is not None:
            await self.instance.let_go()

    async def _run(self) -> None:
        phases: dict[State, Callable[[], Awaitable[tuple[Event, str] | None]]] = {
            State.UNKNOWN: self._unknown,
            State.STOPPED: self._at_rest,
            State.FAILED: self._at_rest,
            State.STARTING: self._starting,
            State.LOADING: self._loading,
            State.READY: self._ready,
            State.DRAINING: self._draining,
            State.STOPPING: self._stopping,
            State.FAILING: self._stopping,
        }
        while True:
            try:
                outcome = await phases[self.state]()
            except Exception as error:
                if (self.state, Event.FAULT) not in TRANSITIONS:
                    raise  # the owner of this task logs it and runs it again
                logger.opt(exception=error).error("{} fails, {}: unexpected", self.id, self.state)
                outcome = self._fault(f"unexpected {type(error).__name__}: {error}")
            if outcome is None:
                return
            self._enter(*outcome)

    def _enter(self, event: Event, reason: str) -> None:
        """Move to the next state. The only place where the state is written."""
        self.state = transition(self.state, event)
        self.reason = reason
        self.trouble = None
        self.progress = ""
        self.since = self.clock.now()
        self.since_wall = self.clock.wall()
        self.serving = self.instance if self.state is State.READY else None
        if self.state is State.FAILED:
            pause = backoff(self.failures)
            self.retry_at = self.clock.now() + (pause if self.is_owned else min(pause, MAX_RETRY))
        if self.state in (State.STOPPED, State.FAILED):
            self._take_next()
        self._events.publish(self.id, event, self.state, reason)

    def _take_next(self) -> None:
        """Take on the declaration that waits for the old instance to be gone."""
        if self._intent.next is not None:
            self.assignment, self._intent.next = self._intent.next, None
            self.retry_at = 0.0

    async def _unknown(self) -> tuple[Event, str]:
        if self.held and (self._adopted is not None or self._outdated):
            return Event.STOP, "found running, although it was stopped by hand"
        if self._adopted is not None:
            self._began = self.progressed = self.clock.now()
            self._adopt(self._adopted)
            return Event.ADOPTED, f"found running ({self._adopted.ref})"
        if self._outdated:
            return Event.STOP, "found running, not as declared"
        return Event.ABSENT, "nothing of it runs"

    def _adopt(self, handle: Handle) -> None:
        self.instance = Instance(self.assignment, handle, self.clock, self._drained)

    async def _at_rest(self) -> tuple[Event, str] | None:
        intent = self._intent
        while True:
            intent.news.clear()
            if intent.ending is not Ending.NONE and self.state is State.FAILED and intent.start is None:
                return Event.STOP, intent.reason
            intent.ending = Ending.NONE
            self._take_next()
            if intent.retired:
                self.gone.set()
                return None
            decision = self._asked()
            if isinstance(decision, Start):
                self._placement = decision.placement
                intent.start = None
                return Event.START, decision.reason
            if isinstance(decision, Refuse):
                intent.start = None
            await self._pause(until=decision.until if isinstance(decision, Wait) else None)

    def _asked(self) -> Decision | None:
        """Return what the scheduler says to a start that somebody wants; None when nobody does."""
        ask = self._intent.start
        if ask is None and self.service.start is StartPolicy.ALWAYS and not self.held:
            ask = Ask(self.id, origin=Origin.POLICY, reason="it is declared to run always")
        return None if ask is None else self._decide(self, ask)

    async def _starting(self) -> tuple[Event, str]:
        service, runtime = self.service, self.assignment.runtime
        self.starts += 1
        self._began = self.progressed = self.clock.now()
        starting = runtime.start(service, self._placement, self._take_progress)
        launching = self._launching = spawn(starting, f"start {self.id}")
        while True:
            self._intent.news.clear()
            if self._intent.ending is not Ending.NONE:
                return Event.STOP, self._intent.reason
            if launching.done():
                self._launching = None
                try:
                    self._adopt(launching.result())
                except ProxyError as error:
                    return self._fault(error.detail, unavailable=isinstance(error, RuntimeUnavailableError))
                return Event.LAUNCHED, f"runs ({launching.result().ref}), not ready yet"
            deadline = self.progressed + service.start_timeout  # a pull has no limit while it makes progress
            if self.clock.now() >= deadline:
                busy = f", busy with: {self.progress}" if self.progress else ""
                return self._fault(f"the start did not end within {service.start_timeout:g} s{busy}")
            await self._pause(launching, until=deadline)

    def _take_progress(self, words: str) -> None:
        if self.state is State.STARTING:
            self.progress = self.reason = words
            self.progressed = self.clock.now()

    async def _loading(self) -> tuple[Event, str]:
        # What runs by itself loads nothing for us: once it has failed, one probe shows whether it is back.
        patience = self.service.start_timeout if self.is_owned or not self.failures else 0.0
        deadline = self.progressed + patience
        intervals = iter(PROBE_INTERVALS)
        last_limit = LAST_PROBE if patience else PROBE_LIMIT
        detail = "no answer"
        while True:
            self._intent.news.clear()
            if ended := self._ended():
                return ended
            is_last = self.clock.now() >= deadline
            limit = self.clock.now() + last_limit if is_last else deadline
            probe = await self._unless_news(self._probe(), until=limit)
            if probe is None and (self._intent.news.is_set() or self._has_exited):
                continue
            if probe is not None and probe.ready:
                took = self.clock.now() - self._began
                self.load_time = took if self.starts else None
                return Event.PROBE_OK, f"ready after {took:.1f} s"
            if probe is not None:
                detail = probe.detail  # a probe that was cut off has none
            overdue = self.clock.now() - deadline
            if is_last or 0 <= overdue < LATE:
                if not patience:
                    return self._fault(f"not reached: {detail}")
                return self._fault(f"not ready within {patience:g} s of its start: {detail}")
            pause = next(intervals, PROBE_INTERVALS[-1])
            await self._pause(until=min(deadline, self.clock.now() + pause))

    async def _probe(self) -> Probe:
        """Ask the engine, and for its models once it is ready; what runs by itself may have others later."""
        if self.instance is None:
            return Probe(ready=False, detail="nothing runs")
        probe = await self.instance.probe()
        if probe.ready and (self.state is State.LOADING or not self.is_owned):
            models, omitted = offerable(await self.instance.models())
            if models != self.models:
                self.models = models
                if omitted:
                    logger.bind(service=self.id).warning(
                        "not all models of {} are offered: {}", self.id, omitted
                    )
                self._learned()
        return probe

    async def _ready(self) -> tuple[Event, str]:
        misses = 0
        next_watch = self.clock.now() + WATCH_INTERVAL
        while True:
            self._intent.news.clear()
            if ended := self._ended():
                return ended
            now = self.clock.now()
            idle_at = self.idle_at(now)
            if idle_at is not None and idle_at <= now:
                return Event.DRAIN, f"unused for {self.service.idle_timeout:g} s"
            if not self.is_owned and now >= next_watch:
                probe = await self._unless_news(self._probe(), until=now + PROBE_LIMIT)
                if probe is None and (self._intent.news.is_set() or self._has_exited):
                    continue
                misses = 0 if probe is not None and probe.ready else misses + 1
                if misses >= WATCH_FAILURES:
                    detail = probe.detail if probe is not None else "no answer"
                    return self._fault(f"{misses} health checks failed: {detail}")
                next_watch = self.clock.now() + WATCH_INTERVAL
                continue
            moments = [idle_at] if idle_at is not None else []
            moments += [] if self.is_owned else [next_watch]
            await self._pause(until=min(moments, default=None))

    def idle_at(self, now: float) -> float | None:
        """Return when the service is to be looked at for idleness; None for never."""
        if self.service.start is StartPolicy.ALWAYS or not self.is_owned or self.serving is None:
            return None
        return idle_deadline(
            in_flight=self.in_flight,
            last_used=max(self.serving.last_used, self.since),
            idle_timeout=self.service.idle_timeout,
            now=now,
        )

    async def _draining(self) -> tuple[Event, str]:
        deadline = self.since + self.service.drain_timeout
        while True:
            self._intent.news.clear()
            if ended := self._ended():
                return ended
            if not self.in_flight:
                return Event.DRAINED, self.reason
            if self.clock.now() >= deadline:
                return Event.DRAINED, f"{self.reason}; {self.in_flight} requests did not end in time"
            await self._pause(until=deadline)

    async def _stopping(self) -> tuple[Event, str]:
        """Stop whatever runs, until there is proof that nothing does."""
        tries = 0
        while True:
            await self._end_launch()
            try:
                await end(self.assignment, self.instance, self.clock)
            except Exception as error:  # noqa: BLE001 - only proof ends this, whatever the runtime raises
                if not isinstance(error, RuntimeFailureError):
                    logger.opt(exception=error).error("{} could not be stopped: unexpected", self.id)
                    error = RuntimeFailureError(f"unexpected {type(error).__name__}: {error}")
                tries += 1
                self.trouble = error
                self.reason = f"could not be stopped yet: {error.detail}"
                await self.clock.sleep(backoff(tries))
            else:
                await self._forget()
                return Event.EXITED, self.reason

    async def _end_launch(self) -> None:
        """Give up a start under way; should it fail at this moment, nobody needs to know any more."""
        launching, self._launching = self._launching, None
        await cancel(launching)
        if launching is not None and not launching.cancelled():
            launching.exception()

    async def _forget(self) -> None:
        """Drop the instance: nothing of it runs any more."""
        instance, self.instance = self.instance, None
        if instance is not None:
            await instance.let_go()

    # What phases have in common.

    def _ended(self) -> tuple[Event, str] | None:
        """Return the event that ends LOADING, READY or DRAINING, if there is one."""
        instance = self.instance
        exited = instance.exit if instance is not None else None
        if instance is not None and exited is not None:
            instance.is_gone = True
            self.instance = None
            said = last_words(self._log_tail())
            self._note_failure(exited.detail, exited.code, said=said)
            return Event.EXITED, f"ended by itself: {exited.detail}{said}"
        ending, reason = self._intent.ending, self._intent.reason
        if ending is Ending.NOW or (ending is Ending.DRAIN and self.state is State.LOADING):
            return Event.STOP, reason
        if ending is Ending.DRAIN and self.state is State.READY:
            return Event.DRAIN, reason
        return None

    def _fault(self, detail: str, *, unavailable: bool = False) -> tuple[Event, str]:
        self._note_failure(detail, None, unavailable=unavailable)
        return Event.FAULT, detail

    def _note_failure(
        self, detail: str, code: int | None, *, said: str = "", unavailable: bool = False
    ) -> None:
        ready_for = self.clock.now() - self.since if self.state in (State.READY, State.DRAINING) else 0.0
        self.failures = count_failure(self.failures, ready_for)
        self.failure = Failure(detail, said, code, self._log_tail(), unavailable)

    def _log_tail(self) -> tuple[str, ...]:
        try:
            return tuple(line.text for line in self.assignment.runtime.logs(self.id).tail(LOG_TAIL))
        except Exception as error:  # noqa: BLE001 - a failure is noted, with its log lines or without
            logger.opt(exception=error).error("cannot read the log of {}: unexpected", self.id)
            return ()

    async def _pause(self, *work: asyncio.Task[Any], until: float | None = None) -> None:
        """Return when there is something new: an intent, an exit, finished work, or the time."""
        watching = [self.instance.watching] if self.instance is not None else []
        await wait_event(self.clock, self._intent.news, *work, *watching, until=until)

    async def _unless_news(self, work: Coroutine[Any, Any, Probe], until: float) -> Probe | None:
        """Return what the work brings, or None when something else happened first."""
        task = spawn(work, f"probe {self.id}")
        try:
            await self._pause(task, until=until)
            return task.result() if task.done() else None
        finally:
            await cancel(task)

    def _drained(self) -> None:
        """Look again, since the last request in flight has ended."""
        if self.state is State.DRAINING:
            self._intent.news.set()


def last_words(lines: Sequence[str]) -> str:
    """Return the last line of an output that says anything, to put behind a reason.

    >>> last_words(["loading", "no such file", " "]), last_words([])
    (': no such file', '')
    """
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1][:MAX_WORDS]}" if said else ""
