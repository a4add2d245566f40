"""Finds the engines that run on their own: their programs, then their ports, then what answers there.

Only loopback addresses are asked, and those that an engine's own environment variable names.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import aiohttp
from loguru import logger

from ai_proxy.core.detection import (
    RUNNING,
    Detection,
    EngineState,
    SocketAddress,
    UnknownEngineError,
    is_loopback,
    socket_address,
)
from ai_proxy.core.ports import Clock, EngineCache
from ai_proxy.core.routing import offerable
from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import EngineSettings
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.detect.classify import (
    BUSY,
    Circumstances,
    ProbeResult,
    Trouble,
    at_rest,
    classify,
    identify,
    latency_ms,
)
from ai_proxy.engines.detect.locator import find_address, find_program
from ai_proxy.engines.http import explain, get
from ai_proxy.engines.listing import read_models
from ai_proxy.engines.profile import EngineDescriptor, Locator

PATIENCE = 2.0
"""Multiple of a healthy engine's longest answer after which an engine counts as silent."""

RETRY_PAUSE = 0.1
"""Seconds between two tries to reach an engine."""

type Owners = Callable[[], Mapping[SocketAddress, str]]
"""Returns the addresses that the proxy and its services listen on, and the name of each listener."""


class Detector:
    """Looks for engines, and caches what it found; implements `core.ports.EngineDetector`.

    Args:
        engines: Those to look for; the ones without a locator are left out.
        session: Asks; closed by the caller.
        clock: The time.
        cache: Of what was found.
        settings: What counts as slow or unreachable.
        env: Where engines are told to listen, and where programs are sought.
        owners: Listeners that are never taken for an engine that runs on its own.
        programs: Finds where an engine is installed; called in a thread.
        timeout: Longest wait for an answer, in seconds; None for twice what a healthy engine may take.
    """

    def __init__(
        self,
        engines: Iterable[EngineDescriptor],
        session: aiohttp.ClientSession,
        clock: Clock,
        cache: EngineCache,
        settings: EngineSettings,
        env: Mapping[str, str],
        owners: Owners = dict,
        programs: Callable[[Locator, Mapping[str, str]], str | None] = find_program,
        timeout: float | None = None,
    ) -> None:
        self._descriptors = tuple(engines)
        self._engines = {one.name: (one, one.locator) for one in self._descriptors if one.locator is not None}
        self._session = session
        self._clock = clock
        self._cache = cache
        self._patience = timeout
        self._env = env
        self._owners = owners
        self._programs = programs
        self._locks = {name: asyncio.Lock() for name in self._engines}
        self.adapt(settings)

    def __repr__(self) -> str:
        return f"<Detector [{', '.join(self._engines)}]>"

    def adapt(self, settings: EngineSettings) -> None:
        """Use other settings from the next probe on."""
        self._settings = settings
        self._timeout = self._patience or PATIENCE * settings.health_latency_threshold_ms / 1000
        self._cache.ttl = settings.cache_ttl

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:
        """Return how each engine stands, all of them asked at once.

        Raises:
            UnknownEngineError: No engine of that name is looked for.
        """
        if engine is not None and engine not in self._engines:
            raise UnknownEngineError(engine, tuple(self._engines))
        names = self._engines if engine is None else (engine,)
        return await asyncio.gather(*(self._detect(name, fresh=fresh) for name in names))

    async def forget(self, engine: str) -> None:
        """Drop what is cached of an engine; a probe under way ends first, and is dropped as well."""
        if engine in self._engines:
            async with self._locks[engine]:
                await self._cache.drop(engine)

    async def _detect(self, name: str, *, fresh: bool) -> Detection:
        async with self._locks[name]:
            known = None if fresh else await self._cache.get(name)
            if known is None:
                known = await self._look_for(*self._engines[name])
                await self._cache.put(known)
            return known

    async def _look_for(self, engine: EngineDescriptor, locator: Locator) -> Detection:
        upstream, remark = find_address(locator, self._env)
        program, probed, version = None, ProbeResult(), None
        models: tuple[str, ...] = ()
        try:
            program = await asyncio.to_thread(self._programs, locator, self._env)
            owner = self._owners().get(socket_address(upstream.host, upstream.port))
            if owner:
                state, detail = at_rest(installed=program is not None), f"{owner} is at that address"
            else:
                probed, tries = await self._probe(upstream, engine, locator)
                circumstances = Circumstances(
                    installed=program is not None,
                    local=is_loopback(upstream.host),
                    slow_over_ms=self._settings.health_latency_threshold_ms,
                    tries=tries,
                )
                answering = identify(probed.answers, self._descriptors)
                state, detail = classify(engine, probed, answering, circumstances)
            if state in RUNNING:
                version = locator.version(probed.answers)
                listed = read_models(engine.profile.listings, probed.answers) or ()
                models = tuple(model.id for model in offerable(listed)[0])
        except Exception as error:  # noqa: BLE001 - one engine that cannot be examined must not hide the others
            logger.opt(exception=error).warning("cannot examine what answers at {}", upstream.url)
            state, detail = EngineState.ERROR_API, f"cannot be examined: {explain(error)}"
        return Detection(
            engine=engine.name,
            title=engine.title,
            state=state,
            address=upstream.url,
            detail=f"{detail} ({remark})" if remark else detail,
            version=version,
            models=models,
            latency_ms=round(latency_ms(probed.answers), 1) if probed.answers else None,
            program=program,
            at=self._clock.wall(),
        )

    async def _probe(
        self, upstream: Upstream, engine: EngineDescriptor, locator: Locator
    ) -> tuple[ProbeResult, int]:
        """Ask for what identifies this engine, with retries; if that fails, for what identifies others."""
        paths = own_paths(engine, locator)
        probed, tries = await self._ask(upstream, paths), 1
        while is_unreachable(probed, upstream) and tries < self._settings.max_network_failures:
            await self._clock.sleep(RETRY_PAUSE)
            probed, tries = await self._ask(upstream, paths), tries + 1
        busy = any(answer.status in BUSY for answer in probed.answers.values())
        if probed.trouble is None and not busy and identify(probed.answers, self._descriptors) is None:
            others = {path for other in self._engines.values() for path in own_paths(*other)} - paths
            more = await self._ask(upstream, others)
            probed = replace(probed, answers={**more.answers, **probed.answers})
        return probed, tries

    async def _ask(self, upstream: Upstream, paths: Iterable[str]) -> ProbeResult:
        asked = tuple(paths)
        came = await asyncio.gather(*(self._get(upstream, path) for path in asked))
        answers = {path: one for path, one in zip(asked, came, strict=True) if isinstance(one, Answer)}
        troubles = [one for one in came if not isinstance(one, Answer)]
        return worst(answers, troubles)

    async def _get(self, upstream: Upstream, path: str) -> Answer | tuple[Trouble, str]:
        try:
            async with asyncio.timeout(self._timeout):
                return await get(self._session, upstream, path)
        except TimeoutError:
            return Trouble.NETWORK, f"no answer within {self._timeout:g} s"
        except Exception as error:  # noqa: BLE001 - any error is a result of the probe
            return trouble_of(error), explain(error)


def own_paths(engine: EngineDescriptor, locator: Locator) -> frozenset[str]:
    """Return every path that identifies an engine or lists its models."""
    return frozenset((*locator.asks, *(listing.path for listing in engine.profile.listings)))


def is_unreachable(probed: ProbeResult, upstream: Upstream) -> bool:
    """Return whether asking again may help: a closed port on this machine stays closed."""
    return probed.trouble is Trouble.NETWORK or (
        probed.trouble is Trouble.REFUSED and not is_loopback(upstream.host)
    )


def trouble_of(error: Exception) -> Trouble:
    """Return what kind of trouble an error is.

    >>> trouble_of(ConnectionRefusedError()), trouble_of(ConnectionResetError())
    (<Trouble.REFUSED: 'refused'>, <Trouble.NETWORK: 'network'>)
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    match error:
        case ConnectionRefusedError():
            return Trouble.REFUSED
        case aiohttp.ServerDisconnectedError() | OSError():
            return Trouble.NETWORK
        case _:
            return Trouble.GARBAGE


def worst(answers: Answers, troubles: Sequence[tuple[Trouble, str]]) -> ProbeResult:
    """Combine the answers of several paths; the worst trouble counts."""
    for kind in (Trouble.GARBAGE, Trouble.NETWORK, Trouble.REFUSED):
        for trouble, detail in troubles:
            if trouble is kind:
                return ProbeResult(
                    answers, Trouble.NETWORK if kind is Trouble.REFUSED and answers else kind, detail
                )
    return ProbeResult(answers)


class MemoryCache:
    """Drops entries older than its time to live; implements `core.ports.EngineCache`.

    Args:
        clock: The time.
        ttl: Time to live, in seconds.
    """

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self.ttl = ttl
        self._kept: dict[str, tuple[float, Detection]] = {}

    def __repr__(self) -> str:
        return f"<MemoryCache [{', '.join(self._kept)}]>"

    async def get(self, engine: str) -> Detection | None:
        """Return the detection of an engine; None when there is none, or it is too old."""
        self._drop_old()
        kept = self._kept.get(engine)
        return kept[1] if kept else None

    async def put(self, detection: Detection) -> None:
        """Store a detection."""
        self._drop_old()
        self._kept[detection.engine] = (self._clock.now() + self.ttl, detection)

    async def drop(self, engine: str) -> None:
        """Drop the detection of an engine."""
        self._kept.pop(engine, None)

    def _drop_old(self) -> None:
        now = self._clock.now()
        self._kept = {name: kept for name, kept in self._kept.items() if now < kept[0]}
