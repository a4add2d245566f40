import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy.core.ports import Model
from ai_proxy.engines.answers import MAX_VALUES, Answer
from ai_proxy.engines.listing import MAX_READ, read_openai

RECORDED = Path(__file__).parents[2] / "fixtures" / "engines"

ENTRIES: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["id", "meta", "max_model_len"]), st.none() | st.integers() | st.text() | st.just({})
)
LISTS = st.fixed_dictionaries({"data": st.none() | st.text() | st.lists(ENTRIES | st.integers())})


@pytest.mark.parametrize(
    ("recorded", "models"),
    [
        ("llamacpp-models.json", [Model("tiny", 1024, frozenset())]),
        ("vllm-models.json", [Model("tiny", 512)]),
        ("ollama-models.json", [Model("tiny:latest")]),
        ("ollama-models-empty.json", []),
    ],
)
def test_lists_as_engines_really_send_them_are_understood(recorded: str, models: list[Model]) -> None:
    assert read_openai(Answer(200, (RECORDED / recorded).read_bytes()).json) == models


@settings(deadline=None)
@given(st.binary() | LISTS.map(lambda value: json.dumps(value).encode()))
def test_no_answer_is_too_odd_to_be_read(body: bytes) -> None:
    assert all(model.id for model in read_openai(Answer(200, body).json) or ())
    assert Answer(500, body).complaint


def test_lm_studio_answers_unknown_paths_with_status_200_and_lists_nothing() -> None:
    assert read_openai({"error": "Unexpected endpoint or method. (GET /v1/models)"}) is None


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("entry", [b"{}", b"[]", b"0", b'{"id":"a","x":[{}]}'])
def test_a_model_list_with_too_many_values_is_ignored(entry: bytes) -> None:
    body = b'{"data":[' + b",".join([entry] * (MAX_VALUES + 1)) + b"]}"

    assert read_openai(Answer(200, body).json) is None


def test_a_list_without_end_is_cut() -> None:
    models = read_openai({"data": [{"id": f"m{number}"} for number in range(60_000)]})
    assert models is not None
    assert len(models) == MAX_READ
