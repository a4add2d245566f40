from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rigs.recorded_engine import choose, recording

from ai_proxy.core.detection import EngineState
from ai_proxy.engines.answers import Answer, Answers
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.detect.classify import (
    Circumstances,
    Classification,
    ProbeResult,
    Trouble,
    classify,
    identify,
)
from ai_proxy.engines.detect.detector import own_paths
from ai_proxy.testing.fake_engine import Request

LOCATORS = {name: (one, one.locator) for name, one in BUILT_IN.items() if one.locator is not None}
PATHS = sorted({path for locator in LOCATORS.values() for path in sorted(own_paths(*locator))})
TITLES = {name: engine.title for name, (engine, _) in LOCATORS.items()}
HERE = Circumstances(installed=True)


def answers(engine: str, *, seconds: float = 0.01, first: bool = False) -> dict[str, Answer]:
    """What a recorded engine answers on every path that any engine is asked for."""
    exchanges = recording(engine)
    told = {path: choose(exchanges, Request("GET", path, [], b""), first=first) for path in PATHS}
    return {
        path: Answer(int(one.head[0].split()[1]), one.answer, {"server": one.header("server")}, seconds)
        for path, one in told.items()
    }


def who(told: Answers) -> str | None:
    return identify(told, BUILT_IN.values())


def classified(engine: str, probed: ProbeResult, circumstances: Circumstances = HERE) -> Classification:
    return classify(BUILT_IN[engine], probed, who(probed.answers), circumstances)


@pytest.mark.parametrize(("engine", "first"), [*product(LOCATORS, [True, False])])
def test_every_engine_is_known_by_its_own_answers_with_models_and_without(engine: str, first: bool) -> None:
    told = answers(engine, first=first)

    assert who(told) == TITLES[engine]
    assert classified(engine, ProbeResult(told)).state is EngineState.RUNNING_HEALTHY


@pytest.mark.parametrize(
    ("wanted", "found"), [pair for pair in product(LOCATORS, LOCATORS) if pair[0] != pair[1]]
)
def test_another_engine_on_the_port_is_named(wanted: str, found: str) -> None:
    state, detail = classified(wanted, ProbeResult(answers(found)))

    assert (state, detail) == (
        EngineState.ERROR_API,
        f"{TITLES[found]} answers there, not {TITLES[wanted]}",
    )


@pytest.mark.parametrize(
    ("engine", "status", "path"),
    [
        (name, status, path)
        for name, locator in LOCATORS.items()
        for status in (429, 503)
        for path in sorted(own_paths(*locator))
    ],
)
def test_an_engine_with_one_busy_answer_is_degraded(engine: str, status: int, path: str) -> None:
    told = answers(engine) | {path: Answer(status, b'{"error":{"message":"Loading model"}}', {})}

    state, detail = classified(engine, ProbeResult(told))

    assert (state, detail) == (EngineState.RUNNING_DEGRADED, f"{status}: loading model")


@pytest.mark.parametrize("engine", LOCATORS)
@pytest.mark.parametrize(
    ("milliseconds", "state"),
    [(1500, EngineState.RUNNING_HEALTHY), (1501, EngineState.RUNNING_DEGRADED)],
)
def test_an_engine_is_slow_beyond_the_threshold(engine: str, milliseconds: int, state: EngineState) -> None:
    told = answers(engine)
    slowest = next(iter(told))
    told[slowest] = replace(told[slowest], seconds=milliseconds / 1000)

    assert (
        classified(engine, ProbeResult(told), Circumstances(installed=True, slow_over_ms=1500)).state is state
    )


@pytest.mark.parametrize("engine", LOCATORS)
def test_an_engine_that_wants_a_key_is_no_use_undeclared(engine: str) -> None:
    told = {path: Answer(401, b'{"error":"Unauthorized"}', {}) for path in own_paths(*LOCATORS[engine])}

    state, detail = classified(engine, ProbeResult(told))

    assert state is EngineState.ERROR_API
    assert "api_key" in detail


def test_vllm_that_wants_a_key_is_known_by_what_it_tells_without() -> None:
    told = answers("vllm") | {"/v1/models": Answer(401, b'{"error":"Unauthorized"}', {})}

    assert who(told) == "vLLM"


@pytest.mark.parametrize(
    "told",
    [
        {"/": Answer(404, b"{}", {"x-ai-proxy-error": "unknown_path"})},
        {"/v1/models": Answer(200, b'{"data":[{"id":"m","owned_by":"vllm","ai_proxy":{}}]}', {})},
    ],
)
@pytest.mark.parametrize("engine", LOCATORS)
def test_an_ai_proxy_is_not_mistaken_for_the_engine_it_speaks_for(engine: str, told: Answers) -> None:
    state, detail = classified(engine, ProbeResult({**answers(engine), **told}))

    assert (state, detail) == (EngineState.ERROR_API, f"ai-proxy answers there, not {TITLES[engine]}")


def test_who_greets_as_ollama_does_without_its_version_is_not_ollama() -> None:
    told = {"/": Answer(200, b"Ollama is running", {}), "/api/version": Answer(404, b"", {})}

    assert who(told) is None


@pytest.mark.parametrize("engine", LOCATORS)
@pytest.mark.parametrize(
    ("trouble", "installed", "local", "state"),
    [
        (Trouble.REFUSED, False, True, EngineState.ABSENT),
        (Trouble.REFUSED, True, True, EngineState.INSTALLED_ONLY),
        (Trouble.REFUSED, True, False, EngineState.ERROR_NETWORK),
        (Trouble.REFUSED, False, False, EngineState.ERROR_NETWORK),
        *[(Trouble.NETWORK, *where, EngineState.ERROR_NETWORK) for where in product([True, False], repeat=2)],
        *[(Trouble.GARBAGE, *where, EngineState.ERROR_API) for where in product([True, False], repeat=2)],
    ],
)
def test_without_answers_the_trouble_decides(
    engine: str, trouble: Trouble, installed: bool, local: bool, state: EngineState
) -> None:
    probed = ProbeResult(trouble=trouble, detail="no answer within 3 s")

    assert classified(engine, probed, Circumstances(installed=installed, local=local)).state is state


ODD = st.sampled_from(
    [b"", b"null", b"[]", b'{"data":7}', b'{"models":[{}]}', b'{"data":[{"id":"x"}]}', b"Ollama is running"]
)
ANSWERS = st.dictionaries(
    st.sampled_from(PATHS),
    st.builds(
        Answer, st.sampled_from([200, 204, 302, 401, 404, 429, 500, 503]), st.binary(max_size=20) | ODD
    ),
)


@settings(deadline=None)
@given(st.sampled_from(sorted(LOCATORS)), ANSWERS, st.booleans())
def test_any_answers_are_classified(engine: str, told: Answers, installed: bool) -> None:
    state, detail = classified(engine, ProbeResult(told), Circumstances(installed=installed))

    assert state in {EngineState.ERROR_API, EngineState.RUNNING_DEGRADED, EngineState.RUNNING_HEALTHY}
    assert detail
    assert (state is EngineState.RUNNING_HEALTHY) <= (who(told) == TITLES[engine])
