import pytest
from tests.rigs.recorded_engine import recording

from ai_proxy.core.abilities import EVERYTHING, Endpoint, Modality, Treatment
from ai_proxy.core.ports import Model
from ai_proxy.engines.answers import Answer
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.listing import read_models

TEXT_ONLY: frozenset[Modality] = frozenset()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_temperature_beyond_openais_range_is_clamped_everywhere(name: str) -> None:
    rule = BUILT_IN[name].profile.abilities.parameters["temperature"]

    assert (rule.treatment, rule.low, rule.high) == (Treatment.CLAMP, 0, 2)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_rule_says_why(name: str) -> None:
    rules = BUILT_IN[name].profile.abilities.parameters.values()

    assert all(rule.why and rule.low <= rule.high for rule in rules)


@pytest.mark.parametrize("name", ["llamacpp", "ollama", "lmstudio"])
def test_engines_with_one_answer_to_a_request_are_asked_for_one(name: str) -> None:
    rule = BUILT_IN[name].profile.abilities.parameters["n"]

    assert (rule.treatment, rule.low, rule.high) == (Treatment.CLAMP, 1, 1)


@pytest.mark.parametrize("name", ["vllm", "sglang", "openai", "generic"])
def test_engines_with_several_answers_are_asked_for_as_many_as_wanted(name: str) -> None:
    assert "n" not in BUILT_IN[name].profile.abilities.parameters


def test_ollama_is_not_sent_what_it_would_pass_over() -> None:
    assert BUILT_IN["ollama"].profile.abilities.parameters["logit_bias"].treatment is Treatment.DROP


@pytest.mark.parametrize("name", ["generic", "openai"])
def test_of_unknown_software_everything_is_asked(name: str) -> None:
    assert BUILT_IN[name].profile.abilities.endpoints == EVERYTHING


@pytest.mark.parametrize("name", ["ollama", "lmstudio", "sglang"])
def test_messages_are_translated_where_not_every_version_takes_them(name: str) -> None:
    assert Endpoint.MESSAGES not in BUILT_IN[name].profile.abilities.endpoints


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("llamacpp", [Model("tiny", 1024, TEXT_ONLY)]),
        ("vllm", [Model("tiny", 512)]),
        (
            "ollama",
            [
                Model("emb:latest", 4096, TEXT_ONLY, "embeddings"),
                Model("tiny:latest", 4096, TEXT_ONLY, "chat"),
            ],
        ),
        (
            "lmstudio",
            [
                Model("qwen2-vl-7b-instruct", 32768, frozenset({Modality.IMAGE}), "chat"),
                Model("meta-llama-3.1-8b-instruct", 4096, TEXT_ONLY, "chat"),
                Model("text-embedding-nomic-embed-text-v1.5", 2048, TEXT_ONLY, "embeddings"),
            ],
        ),
    ],
)
def test_engines_tell_what_their_models_are(name: str, models: list[Model]) -> None:
    told = {one.path: Answer(200, one.answer) for one in recording(name) if one.method == "GET"}

    assert read_models(BUILT_IN[name].profile.listings, told) == models


def test_a_list_that_is_not_there_leaves_the_next_one() -> None:
    told = {
        "/api/v1/models": Answer(200, b'{"error":"Unexpected endpoint or method. (GET /api/v1/models)"}'),
        "/api/v0/models": Answer(404, b""),
        "/v1/models": Answer(200, b'{"data":[{"id":"m"}]}'),
    }

    assert read_models(BUILT_IN["lmstudio"].profile.listings, told) == [Model("m")]
