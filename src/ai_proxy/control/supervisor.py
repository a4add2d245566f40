"""One task per service: drives it through its life, and is the only writer of its state."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ai_proxy.control.events import EventBus
from ai_proxy.control.instance import Assignment, Instance
from ai_proxy.control.orders import Ending, Orders
from ai_proxy.control.replicas import Replicas
from ai_proxy.core.errors import ProxyError, RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.lifecycle import RUNNING, Event, State, backoff, count_failure, transition
from ai_proxy.core.ports import Clock, Model, Probe, Recorder
from ai_proxy.core.retention import idle_deadline
from ai_proxy.core.service import Handle, Lease, Outcome, StartPolicy
from ai_proxy.platform.clock import wait_any
from ai_proxy.platform.tasks import cancel, spawn

MAX_WORDS = 200
"""Characters of a log line that are put into a reason."""
LOG_TAIL = 50
"""Log lines kept with a failure."""
PROBE_INTERVALS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between the probes of a loading service: often at first, since small models load at once."""
PROGRESS_INTERVAL = 0.5
"""Seconds between two looks at what a start is busy with."""
WATCH_INTERVAL = 10.0
"""Seconds between two health checks of a service that somebody else runs."""
WATCH_FAILURES = 3
"""Failed health checks in a row after which it counts as gone."""
_ON_ITS_WAY = frozenset({State.STARTING, State.LOADING, State.READY})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a service failed last."""

    detail: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    unavailable: bool = False


class Supervisor:
    """Drives one service; one method per state, each returning the event that ends it, and why.

    Orders (`start`, `stop`, ...) only note what is wanted and return at once. The attributes are for others
    to read; leases alone are counted from outside, by the scheduler.
    """

    def __init__(
        self,
        assignment: Assignment,
        clock: Clock,
        events: EventBus,
        recorder: Recorder,
    ) -> None:
        self.service = assignment.service
        self.clock = clock
        self.state = State.UNKNOWN
        self.reason = "the proxy has just started"
        self.since = clock.now()
        self.since_wall = self.added = clock.wall()
        self.replicas: Replicas | None = None
        self.models: tuple[Model, ...] = ()
        self.learned: Callable[[], None] = lambda: None
        self.in_flight = 0
        self.last_used = clock.now()
        self.held = False
        self.resumable = False
        self.starts = 0
        self.failures = 0
        self.failure = Failure()
        self.trouble: RuntimeFailureError | None = None
        self.retry_at = 0.0
        self.load_time: float | None = None
        self._events = events
        self._recorder = recorder
        self._orders = Orders()
        self._began = clock.now()
        self.instance = Instance(assignment, clock)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Supervisor [{self.service.id}: {self.state}, {self.in_flight} in flight]>"

    @property
    def stays_ready(self) -> bool:
        """Whether it is ready, and nobody has asked for its end."""
        return self.state is State.READY and self._orders.ending is Ending.NONE

    @property
    def starts_now(self) -> bool:
        """Whether it is about to start again after a failure, which tells nothing of that start."""
        return self.state is State.FAILED and self._orders.start

    # Orders: noted here, carried out by the task.

    def start(self, *, by_hand: bool = False) -> None:
        """Ask for a start; by hand it also ends a hold and a back-off."""
        if by_hand:
            self.held = False
            self.retry_at = 0.0
            self.failures = 0
        if self.state not in _ON_ITS_WAY or self._orders.ending is not Ending.NONE:
            self._orders.start = True
        self._orders.news.set()

    def resume(self) -> None:
        """Call back a service that is about to stop for want of use."""
        self._orders.resume = True
        self._orders.news.set()

    def stop(self) -> None:
        """End it now and hold it stopped until it is started by hand."""
        self.held = True
        self._orders.start = False
        self._orders.end(Ending.NOW, "stopped by hand")

    def unload(self, reason: str = "unloaded by hand") -> None:
        """End it once the requests in flight are done; the next request may start it again."""
        self._orders.start = False
        self._orders.end(Ending.DRAIN, reason)

    def restart(self, reason: str = "restarted by hand") -> None:
        """End it once the requests in flight are done, then start it again."""
        self._orders.end(Ending.DRAIN, reason)
        self.start(by_hand=True)

    def update(self, assignment: Assignment) -> None:
        """Take a declaration that a running instance still matches."""
        self.service = self.instance.service = assignment.service
        self._orders.news.set()

    def replace(self, assignment: Assignment) -> None:
        """Take a declaration that a running instance does not match; one that runs is replaced."""
        self._orders.next = assignment
        self.retry_at = 0.0
        if self.state in RUNNING and not self.held:
            self._orders.start = True
        self._orders.end(Ending.DRAIN, "its configuration changed")

    # The life of the task.

    def postpone(self, reason: str) -> None:
        """Say why the task cannot be started yet: nobody can tell whether anything runs."""
        self.reason = reason
        self.failure = Failure(reason, unavailable=True)

    def begin(self, adopted: Handle | None) -> None:
        """Start the task, with what was found running."""
        self.failure = Failure()
        self.instance.handle = adopted
        self._task = spawn(self._run(), f"supervise {self.service.id}")

    async def retire(self, reason: str) -> None:
        """End the service for good; return with proof that nothing runs."""
        self._orders.retired = True
        self._orders.start = False
        self._orders.next = None
        self._orders.end(Ending.NOW, reason)
        if self._task is not None:
            await self._task

    async def detach(self) -> None:
        """Stop looking after the service and leave it running."""
        await cancel(self._task)
        await self.instance.detach()

    async def _run(self) -> None:
        phases: dict[State, Callable[[], Awaitable[tuple[Event, str] | None]]] = {
            State.UNKNOWN: self._unknown,
            State.STOPPED: self._at_rest,
            State.FAILED: self._at_rest,
            State.STARTING: self._starting,
            State.LOADING: self._loading,
            State.READY: self._ready,
            State.DRAINING: self._draining,
            State.STOPPING: self._ending_it,
            State.FAILING: self._ending_it,
        }
        while (outcome := await phases[self.state]()) is not None:
            self._enter(*outcome)

    def _enter(self, event: Event, reason: str) -> None:
        """Move to the next state. The only place where the state is written."""
        self.state = transition(self.state, event)
        self.reason = reason
        self.trouble = None
        self.since = self.clock.now()
        self.since_wall = self.clock.wall()
        self.replicas = self.instance.replicas if self.state is State.READY else None
        if self.state in (State.STOPPED, State.FAILED):
            self._come_to_rest()
        self._recorder.state(self.service.id, self.state)
        self._events.publish(self.service.id, event, self.state, reason)

    def _come_to_rest(self) -> None:
        self.resumable = False
        if self.state is State.FAILED:
            self.retry_at = self.clock.now() + backoff(self.failures)
        self._take_next()

    def _take_next(self) -> None:
        """Take on the declaration that waits for the old instance to be gone."""
        assignment, self._orders.next = self._orders.next, None
        if assignment is not None:
            self.service = assignment.service
            self.instance = Instance(assignment, self.clock)
            self.retry_at = 0.0

    async def _unknown(self) -> tuple[Event, str]:
        handle = self.instance.handle
        if handle is None:
            return Event.ABSENT, "nothing of it runs"
        self.instance.watch(handle)
        self._began = self.clock.now()
        return Event.ADOPTED, f"found running ({handle.ref})"

    async def _at_rest(self) -> tuple[Event, str] | None:
        while True:
            self._orders.news.clear()
            if (
                self._orders.ending is not Ending.NONE
                and self.state is State.FAILED
                and not self._orders.start
            ):
                return Event.STOP, self._orders.reason
            self._orders.ending = Ending.NONE
            self._take_next()
            if self._orders.retired:
                return None
            wanted = self._orders.start or (self.service.start is StartPolicy.ALWAYS and not self.held)
            if wanted and self.clock.now() >= self.retry_at:
                self._orders.start = False
                return Event.START, "started again" if self.starts else "started"
            await self._pause(until=self.retry_at if wanted else None)

    async def _starting(self) -> tuple[Event, str]:
        self.starts += 1
        self._began = self.clock.now()
        launching = self.instance.launch()
        deadline = self._began + self.service.start_timeout
        while True:
            self._orders.news.clear()
            if self._orders.ending is not Ending.NONE:
                return Event.STOP, self._orders.reason
            if launching.done():
                return self._launched(launching)
            if progress := self.instance.progress:
                self.reason = progress
                deadline = self.instance.progressed + self.service.start_timeout  # a pull takes what it takes
            if self.clock.now() >= deadline:
                return self._fault(f"the start did not end within {self.service.start_timeout:g} s")
            await self._pause(launching, until=min(deadline, self.clock.now() + PROGRESS_INTERVAL))

    def _launched(self, launching: asyncio.Task[Handle]) -> tuple[Event, str]:
        try:
            handle = launching.result()
        except RuntimeUnavailableError as error:
            return self._fault(error.detail, unavailable=True)
        except ProxyError as error:
            return self._fault(error.detail)
        except Exception as error:  # noqa: BLE001 - a defect of a runtime must not take the supervisor along
            return self._fault(f"{type(error).__name__}: {error}")
        self.instance.watch(handle)
        return Event.LAUNCHED, f"runs ({handle.ref}), not ready yet"

    async def _loading(self) -> tuple[Event, str]:
        deadline = self._began + self.service.start_timeout
        intervals = iter(PROBE_INTERVALS)
        detail = "it was never asked"
        while True:
            self._orders.news.clear()
            if ended := self._ended():
                return ended
            if self.clock.now() >= deadline:
                limit = self.service.start_timeout
                return self._fault(f"not ready within {limit:g} s of its start: {detail}")
            probe = await self._unless_news(self._probe(), deadline)
            if probe is None:
                continue
            if probe.ready:
                return self._loaded()
            detail = probe.detail
            pause = next(intervals, PROBE_INTERVALS[-1])
            await self._pause(until=min(deadline, self.clock.now() + pause))

    async def _probe(self) -> Probe:
        """Ask the engine, and for its models once it is ready; others may add some to what is external."""
        probe = await self.instance.probe()
        if probe.ready and (self.state is State.LOADING or self._is_external):
            models = await self.instance.models()
            if models != self.models:
                self.models = models
                self.learned()
        return probe

    def _loaded(self) -> tuple[Event, str]:
        took = self.clock.now() - self._began
        if self.starts:
            self.load_time = took
            self._recorder.started(self.service.id, took)
        self.last_used = self.clock.now()
        return Event.PROBE_OK, f"ready after {took:.1f} s"

    async def _ready(self) -> tuple[Event, str]:
        watches = self._is_external
        misses = 0
        next_watch = self.clock.now() + WATCH_INTERVAL
        while True:
            self._orders.news.clear()
            if ended := self._ended():
                return ended
            now = self.clock.now()
            idle_at = self.idle_at(now)
            if idle_at is not None and idle_at <= now:
                self.resumable = True
                self._orders.resume = False
                return Event.DRAIN, f"unused for {self.service.idle_timeout:g} s"
            if watches and now >= next_watch:
                probe = await self._unless_news(self._probe(), now + WATCH_INTERVAL)
                misses = 0 if probe is None or probe.ready else misses + 1
                if probe is not None and misses >= WATCH_FAILURES:
                    return self._fault(f"{misses} health checks failed: {probe.detail}")
                next_watch = self.clock.now() + WATCH_INTERVAL
                continue
            moments = [idle_at] if idle_at is not None else []
            moments += [next_watch] if watches else []
            await self._pause(until=min(moments, default=None))

    @property
    def _is_external(self) -> bool:
        return not self.instance.is_owned

    def idle_at(self, now: float) -> float | None:
        """Return when the service is to be looked at for idleness; None for never."""
        if self.service.start is StartPolicy.ALWAYS or self._is_external:
            return None
        return idle_deadline(
            in_flight=self.in_flight,
            last_used=max(self.last_used, self.since),
            idle_timeout=self.service.idle_timeout,
            now=now,
        )

    async def _draining(self) -> tuple[Event, str]:
        deadline = self.since + self.service.drain_timeout
        while True:
            self._orders.news.clear()
            if self.resumable and (self._orders.resume or self.in_flight):
                self.resumable = self._orders.resume = False
                return Event.RESUME, "a request came"
            if self.instance.exit is not None or self._orders.ending is Ending.NOW:
                ended = self._ended()
                assert ended is not None  # noqa: S101 - the line above
                return ended
            if not self.in_flight:
                return Event.DRAINED, self.reason
            if self.clock.now() >= deadline:
                return Event.DRAINED, f"{self.reason}; {self.in_flight} requests did not end in time"
            await self._pause(until=deadline)

    async def _ending_it(self) -> tuple[Event, str]:
        """Stop whatever runs, until there is proof that nothing does."""
        tries = 0
        while True:
            try:
                await self.instance.stop()
            except RuntimeFailureError as error:
                tries += 1
                self.trouble = error
                self.reason = f"could not be stopped yet: {error.detail}"
                await self.clock.sleep(backoff(tries))
            else:
                return Event.EXITED, self.reason

    # What phases have in common.

    def _ended(self) -> tuple[Event, str] | None:
        """Return the event that ends LOADING, READY or DRAINING, if there is one."""
        exited = self.instance.exit
        if exited is not None:
            self.instance.watching = None
            self.instance.forget()
            detail = exited.detail + last_words(self.instance.log_tail(LOG_TAIL))
            self._note_failure(detail, exited.code)
            return Event.EXITED, f"ended by itself: {detail}"
        if self._orders.ending is Ending.NOW or (
            self._orders.ending is Ending.DRAIN and self.state is State.LOADING
        ):
            return Event.STOP, self._orders.reason
        if self._orders.ending is Ending.DRAIN and self.state is State.READY:
            self.resumable = False
            return Event.DRAIN, self._orders.reason
        return None

    def _fault(self, detail: str, *, unavailable: bool = False) -> tuple[Event, str]:
        self._note_failure(detail, None, unavailable=unavailable)
        return Event.FAULT, detail

    def _note_failure(self, detail: str, code: int | None, *, unavailable: bool = False) -> None:
        ready_for = self.clock.now() - self.since if self.state in (State.READY, State.DRAINING) else 0.0
        self.failures = count_failure(self.failures, ready_for)
        self.failure = Failure(detail, code, self.instance.log_tail(LOG_TAIL), unavailable)

    async def _pause(self, *work: asyncio.Task[Any], until: float | None = None) -> None:
        """Return when there is something new: an order, an exit, finished work, or the time."""
        news = spawn(self._orders.news.wait(), "news")
        exit_ = self.instance.watching
        try:
            await wait_any(self.clock, news, *work, *([exit_] if exit_ else []), until=until)
        finally:
            await cancel(news)

    async def _unless_news(self, work: Coroutine[Any, Any, Probe], until: float) -> Probe | None:
        """Return what the work brings, or None when something else happened first."""
        task = spawn(work, f"probe {self.service.id}")
        try:
            await self._pause(task, until=until)
            return task.result() if task.done() else None
        finally:
            await cancel(task)

    def lease_ended(self, lease: Lease, outcome: Outcome) -> None:
        """Take note of a lease that was given back."""
        self.in_flight -= 1
        if self.replicas is not None and self.replicas.only is None:
            self.replicas.give_back(lease, outcome)
        if not self.in_flight:
            self.last_used = self.clock.now()
            if self.state is State.DRAINING:
                self._orders.news.set()


def last_words(lines: Sequence[str]) -> str:
    """Return the last line of an output that says anything, to put behind a reason.

    >>> last_words(["loading", "no such file", " "]), last_words([])
    (': no such file', '')
    """
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1][:MAX_WORDS]}" if said else ""
