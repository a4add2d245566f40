"""Finding the engines that run by themselves: their programs, then their ports, then what answers there.

Only loopback addresses are asked, and those that an engine's own environment variable names.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import aiohttp

from ai_proxy.core.detection import (
    RUNNING,
    Detection,
    SocketAddress,
    UnknownEngineError,
    is_loopback,
    socket_address,
)
from ai_proxy.core.ports import Clock, EngineCache
from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import EngineSettings
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.catalog import PROFILES
from ai_proxy.engines.detect.classify import (
    BUSY,
    Circumstances,
    Classification,
    ProbeResult,
    Trouble,
    at_rest,
    classify,
    identify,
    latency_ms,
)
from ai_proxy.engines.detect.locator import Locator, find_address, find_program
from ai_proxy.engines.http import Profile, explain, get
from ai_proxy.engines.listing import read_models

PATIENCE = 2.0
"""How much longer than a healthy engine one may take to answer before it counts as silent."""

RETRY_PAUSE = 0.1
"""Seconds between two tries to reach an engine."""

LOCATORS: Mapping[str, tuple[Profile, Locator]] = {
    name: (profile, profile.locator) for name, profile in PROFILES.items() if profile.locator is not None
}
"""The engines that are looked for."""

type Owners = Callable[[], Mapping[SocketAddress, str]]
"""Returns the addresses that the proxy and its services listen on, and the name of each listener."""


class Detector:
    """Looks for engines, and remembers for a while what it found; implements `core.ports.EngineDetector`.

    Args:
        session: Asks; closed by the caller.
        clock: Tells the time.
        cache: Remembers.
        settings: What counts as slow or unreachable.
        env: Where engines are told to listen, and where programs are sought.
        owners: What is never taken for an engine that runs by itself.
        programs: Finds where an engine is installed; it may take its time.
        timeout: Longest wait for an answer, in seconds; None for twice what a healthy engine may take.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        cache: EngineCache,
        settings: EngineSettings,
        env: Mapping[str, str],
        owners: Owners = dict,
        programs: Callable[[Locator, Mapping[str, str]], str | None] = find_program,
        timeout: float | None = None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._cache = cache
        self._patience = timeout
        self._env = env
        self._owners = owners
        self._programs = programs
        self._turns = {name: asyncio.Lock() for name in LOCATORS}
        self.adapt(settings)

    def __repr__(self) -> str:
        return f"<Detector [{', '.join(LOCATORS)}]>"

    def adapt(self, settings: EngineSettings) -> None:
        """Go by other settings from the next probe on."""
        self._settings = settings
        self._timeout = self._patience or PATIENCE * settings.health_latency_threshold_ms / 1000
        self._cache.ttl = settings.cache_ttl

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:
        """Return how each engine stands, all of them asked at once.

        Raises:
            UnknownEngineError: No engine of that name is looked for.
        """
        if engine is not None and engine not in LOCATORS:
            raise UnknownEngineError(engine, tuple(LOCATORS))
        names = LOCATORS if engine is None else (engine,)
        return await asyncio.gather(*(self._detect(name, fresh=fresh) for name in names))

    async def forget(self, engine: str) -> None:
        """Have an engine asked again; a probe under way ends first, and is forgotten as well."""
        if engine in LOCATORS:
            async with self._turns[engine]:
                await self._cache.drop(engine)

    async def _detect(self, engine: str, *, fresh: bool) -> Detection:
        async with self._turns[engine]:
            known = None if fresh else await self._cache.get(engine)
            if known is None:
                known = await self._look_for(*LOCATORS[engine])
                await self._cache.put(known)
            return known

    async def _look_for(self, profile: Profile, locator: Locator) -> Detection:
        upstream, remark = find_address(locator, self._env)
        program = await asyncio.to_thread(self._programs, locator, self._env)
        owner = self._owners().get(socket_address(upstream.host, upstream.port))
        if owner:
            probed = ProbeResult()
            state, detail = at_rest(installed=program is not None), f"{owner} is at that address"
        else:
            probed, tries = await self._look_at(upstream, profile, locator)
            state, detail = self._classify(profile, probed, upstream, tries, program)
        answers = probed.answers if state in RUNNING else {}
        models = read_models(profile.listings, answers) or ()
        return Detection(
            engine=profile.name,
            title=profile.abilities.title,
            state=state,
            address=upstream.url,
            detail=f"{detail} ({remark})" if remark else detail,
            version=locator.version(answers),
            models=tuple(model.id for model in models),
            latency_ms=round(latency_ms(probed.answers), 1) if probed.answers else None,
            program=program,
            at=self._clock.wall(),
        )

    def _classify(
        self, profile: Profile, probed: ProbeResult, upstream: Upstream, tries: int, program: str | None
    ) -> Classification:
        circumstances = Circumstances(
            installed=program is not None,
            local=is_loopback(upstream.host),
            slow_over_ms=self._settings.health_latency_threshold_ms,
            tries=tries,
        )
        return classify(profile, probed, circumstances)

    async def _look_at(
        self, upstream: Upstream, profile: Profile, locator: Locator
    ) -> tuple[ProbeResult, int]:
        """Ask what tells this engine, again while it cannot be reached; then what tells who else it is."""
        paths = own_paths(profile, locator)
        probed, tries = await self._ask(upstream, paths), 1
        while is_unreachable(probed, upstream) and tries < self._settings.max_network_failures:
            await self._clock.sleep(RETRY_PAUSE)
            probed, tries = await self._ask(upstream, paths), tries + 1
        if probed.trouble is None and is_stranger(probed.answers):
            others = {path for other in LOCATORS.values() for path in own_paths(*other)} - paths
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
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return trouble_of(error), explain(error)


def own_paths(profile: Profile, locator: Locator) -> frozenset[str]:
    """Return every path that an engine is asked for, to know it and its models."""
    return frozenset((*locator.asks, *(listing.path for listing in profile.listings)))


def is_unreachable(probed: ProbeResult, upstream: Upstream) -> bool:
    """Tell whether asking again may help: a closed port does not open for it, unless it is far away."""
    return probed.trouble is Trouble.NETWORK or (
        probed.trouble is Trouble.REFUSED and not is_loopback(upstream.host)
    )


def is_stranger(answers: Answers) -> bool:
    """Tell whether it takes more questions to know who answers."""
    return identify(answers) is None and not any(answer.status in BUSY for answer in answers.values())


def trouble_of(error: Exception) -> Trouble:
    """Sort an error of the network.

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
    """Return what came of asking several paths: one that went wrong counts more than those that went well."""
    for kind in (Trouble.GARBAGE, Trouble.NETWORK, Trouble.REFUSED):
        for trouble, detail in troubles:
            if trouble is kind:
                return ProbeResult(
                    answers, Trouble.NETWORK if kind is Trouble.REFUSED and answers else kind, detail
                )
    return ProbeResult(answers)
