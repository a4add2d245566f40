import aiohttp

from ai_proxy.core.ports import Engine
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.detect.classify import identify
from ai_proxy.engines.http import create_engines
from ai_proxy.engines.profile import EngineDescriptor, Locator, Profile


def broken_create(profile: Profile, session: aiohttp.ClientSession) -> Engine:
    raise RuntimeError(f"{profile.name} cannot be made")


def broken_check(answers: Answers) -> bool:
    raise KeyError("version")


BROKEN = EngineDescriptor(
    Profile("broken"),
    locator=Locator(1, "BROKEN", (), (), (), broken_check, lambda _: None),
    create=broken_create,
)


async def test_every_engine_that_services_may_declare_is_there_by_its_name() -> None:
    async with aiohttp.ClientSession() as session:
        engines = create_engines(BUILT_IN.values(), session)
    assert set(engines) == {"llamacpp", "vllm", "ollama", "lmstudio", "sglang", "openai", "generic"}
    assert all(engine.name == name for name, engine in engines.items())


async def test_an_engine_that_cannot_be_created_does_not_keep_the_others_away() -> None:
    async with aiohttp.ClientSession() as session:
        engines = create_engines([BROKEN, BUILT_IN["vllm"]], session)
    assert set(engines) == {"vllm"}


def test_an_engine_that_fails_on_answers_does_not_hide_whose_they_are() -> None:
    answers = {"/v1/models": Answer(200, b'{"data":[{"id":"m","owned_by":"vllm"}]}')}
    assert identify(answers, [BROKEN, BUILT_IN["vllm"]]) == "vLLM"
