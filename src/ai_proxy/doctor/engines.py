"""Which engines run by themselves."""

from collections.abc import Sequence

from ai_proxy.config.build import engine_settings
from ai_proxy.core.detection import RUNNING, Detection, EngineState
from ai_proxy.doctor.finding import Finding, ok, shorten, warning
from ai_proxy.doctor.installation import Installation
from ai_proxy.platform.clock import SystemClock

SUBJECT = "engines"
OFF = frozenset({"0", "false", "no", "off"})


def judge_engines(found: Sequence[Detection]) -> Sequence[Finding]:
    """Return a line for each engine that is here."""
    said = [_judge(one) for one in found if one.state is not EngineState.ABSENT]
    return said or [ok(SUBJECT, "none run by themselves on this machine")]


def _judge(one: Detection) -> Finding:
    if one.state in RUNNING:
        version = f" {one.version}" if one.version else ""
        return ok(SUBJECT, f"{one.title}{version} at {one.address}, {len(one.models)} models")
    if one.state is EngineState.INSTALLED_ONLY:
        return ok(SUBJECT, f"{one.title} is installed and does not run")
    fix = "see its own log, or end what is there in its place"
    return warning(SUBJECT, f"{one.title} at {one.address}: {shorten(one.detail)}", fix)


async def check_engines(installation: Installation) -> Sequence[Finding]:
    """Look for engines, where the configuration lets them be looked for."""
    import aiohttp

    from ai_proxy.engines.detect.cache import MemoryCache
    from ai_proxy.engines.detect.detector import Detector

    settings = engine_settings(installation.config)
    if not settings.detect or installation.env.get("AI_PROXY_DETECT", "").lower() in OFF:
        return [ok(SUBJECT, "not looked for: detection is off")]
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:
        cache = MemoryCache(clock, settings.cache_ttl)
        detector = Detector(session, clock, cache, settings, installation.env, timeout=1.5)
        return judge_engines(await detector.detect())
