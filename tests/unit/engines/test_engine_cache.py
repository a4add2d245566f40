from tests.rigs.fake_detector import detection

from ai_proxy.engines.detect.detector import MemoryCache
from ai_proxy.testing.fakes import FakeClock


async def test_what_was_found_is_remembered_for_its_time_to_live() -> None:
    clock = FakeClock()
    cache = MemoryCache(clock, ttl=300)
    await cache.put(detection("ollama"))

    await clock.advance(299.9)
    assert await cache.get("ollama") == detection("ollama")

    await clock.advance(0.1)
    assert await cache.get("ollama") is None


async def test_the_old_vanishes_by_itself() -> None:
    clock = FakeClock()
    cache = MemoryCache(clock, ttl=300)
    await cache.put(detection("ollama"))
    await clock.advance(300)

    await cache.put(detection("vllm"))

    assert repr(cache) == "<MemoryCache [vllm]>"


async def test_one_engine_is_dropped_and_the_others_stay() -> None:
    cache = MemoryCache(FakeClock(), ttl=300)
    for engine in ("ollama", "vllm"):
        await cache.put(detection(engine))

    await cache.drop("ollama")
    await cache.drop("unheard-of")

    assert await cache.get("ollama") is None
    assert await cache.get("vllm") == detection("vllm")
