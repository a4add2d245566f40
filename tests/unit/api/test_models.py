from typing import Any
from urllib.parse import quote

import pytest
from tests.rigs.plane import FakePlane, view
from tests.unit.api.conftest import Api
from tests.unit.api.house import House

from ai_proxy.core.keys import Grant
from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Model


async def get(api: Api, path: str, status: int = 200) -> Any:
    async with api.client.get(path) as response:
        assert response.status == status
        assert response.content_type == "application/json"
        return await response.json()


async def test_every_model_is_listed_as_openai_lists_them(api: Api) -> None:
    api.plane.listed["coder"] = (Model("coder", context_length=8192),)

    body = await get(api, "/v1/models")

    assert body["object"] == "list"
    assert body["data"][1] == {
        "id": "coder",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "llamacpp",
        "ai_proxy": {
            "service": "coder",
            "engine": "llamacpp",
            "state": "ready",
            "context_length": 8192,
            "target": "coder",
        },
    }


async def test_models_of_stopped_services_are_listed(api: Api) -> None:
    body = await get(api, "/v1/models")

    assert [(one["id"], one["ai_proxy"]["state"]) for one in body["data"]] == [
        ("llama3", State.STOPPED),
        ("coder", State.READY),
    ]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("llama3", "/models/llama3.gguf"),
        ("llama3/llama3", "/models/llama3.gguf"),
        ("llama3//models/llama3.gguf", "/models/llama3.gguf"),
        ("flm://llama3/llama3", "/models/llama3.gguf"),
    ],
)
@pytest.mark.parametrize("escape", [True, False])
async def test_a_model_is_found_by_every_name_a_request_may_say(
    api: Api, name: str, target: str, escape: bool
) -> None:
    api.plane.listed["llama3"] = (Model("/models/llama3.gguf", context_length=4096),)

    body = await get(api, f"/v1/models/{quote(name, safe='') if escape else name}")

    assert body["id"] == name
    assert body["ai_proxy"]["service"] == "llama3"
    assert body["ai_proxy"]["target"] == target
    assert body["ai_proxy"]["context_length"] == 4096


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/lama3", 404, "model_not_found"),
        ("GET", "/v1/nope", 404, "unknown_path"),
        ("GET", "/v1", 404, "unknown_path"),
        ("DELETE", "/v1/models/llama3", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
async def test_every_error_under_v1_has_the_form_of_openai(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    async with api.client.request(method, path) as response:
        error = (await response.json(content_type="application/json"))["error"]

    assert response.status == status
    assert response.headers["X-AI-Proxy-Error"] == error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["param"] is None
    assert error["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"])
async def test_errors_of_anthropics_paths_have_its_form(api: Api, path: str) -> None:
    async with api.client.get(path) as response:
        body = await response.json()

    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}


async def test_an_unknown_model_shows_near_names(api: Api) -> None:
    body = await get(api, "/v1/models/lama3", 404)

    assert "'llama3'" in body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "allowed"), [("/v1/models", "GET"), ("/v1/chat/completions", "POST"), ("/v1/embeddings", "POST")]
)
async def test_a_wrong_method_says_the_right_one(api: Api, path: str, allowed: str) -> None:
    async with api.client.delete(path) as response:
        error = (await response.json())["error"]

    assert response.headers["Allow"] == allowed
    assert error["message"] == f"DELETE is not possible on {path}; {allowed} is"


async def test_paths_that_only_begin_alike_are_told_of_as_problems(api: Api) -> None:
    async with api.client.get("/v10") as response:
        assert response.content_type == "application/problem+json"


async def test_our_own_listing_has_every_fact(api: Api) -> None:
    api.plane.listed["coder"] = (Model("qwen", context_length=8192, kind="chat"),)

    body = await get(api, "/api/v1/models")

    assert body["models"][1] == {
        "name": "coder",
        "service_id": "coder",
        "engine": "llamacpp",
        "state": "ready",
        "target": "qwen",
        "names": ["coder", "coder/qwen"],
        "context_length": 8192,
        "kind": "chat",
        "since": 1_700_000_000.0,
    }


def test_the_fake_plane_names_models_as_the_views_of_its_services_do() -> None:
    plane = FakePlane(view("a", models=("a", "gpt")), view("b"))

    assert [one.name for one in plane.models()] == ["a", "gpt", "b"]


async def test_a_key_for_some_models_is_shown_no_others(house: House) -> None:
    _, key = await house.state.security.keys.create(Grant("some", models=frozenset({"llama*"})))
    caller = {"X-AI-Proxy-Principal": key.id}

    async with house.client.get("/v1/models", headers=caller) as response:
        listed = [model["id"] for model in (await response.json())["data"]]
    async with house.client.get("/v1/models/coder", headers=caller) as response:
        shown = response.status
    async with house.client.get("/ollama/api/tags", headers=caller) as response:
        tagged = [model["name"] for model in (await response.json())["models"]]

    assert (listed, shown, tagged) == (["llama3"], 404, ["llama3"])
