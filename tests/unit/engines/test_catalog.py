import aiohttp

from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.http import create_engines


async def test_every_engine_that_services_may_declare_is_there_by_its_name() -> None:
    async with aiohttp.ClientSession() as session:
        engines = create_engines(BUILT_IN.values(), session)
    assert set(engines) == {"llamacpp", "vllm", "ollama", "lmstudio", "sglang", "openai", "generic"}
    assert all(engine.name == name for name, engine in engines.items())
