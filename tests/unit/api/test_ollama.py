from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.api.conftest import Api

from ai_proxy.api.ollama import NEVER
from ai_proxy.core.abilities import Abilities, Modality, Rule, Treatment
from ai_proxy.core.lifecycle import Event
from ai_proxy.core.ports import Model
from ai_proxy.core.service import ResourceUsage


async def get(api: Api, path: str) -> Any:
    async with api.client.get(f"/ollama{path}") as response:
        assert response.status == 200
        return await response.json()


async def show(api: Api, body: object, status: int = 200) -> Any:
    async with api.client.post("/ollama/api/show", json=body) as response:
        assert response.status == status
        return await response.json()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_says_what_clients_look_for(api: Api, method: str) -> None:
    async with api.client.request(method, "/ollama/") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert await response.text() == ("Ollama is running" if method == "GET" else "")


async def test_the_version_is_three_numbers_that_clients_can_compare(api: Api) -> None:
    numbers = (await get(api, "/api/version"))["version"].split(".")

    assert [int(number) for number in numbers] >= [0, 6, 4]
    assert len(numbers) == 3


async def test_tags_list_every_model(api: Api) -> None:
    api.plane.listed["coder"] = (Model("qwen", context_length=8192),)

    stopped, ready = (await get(api, "/api/tags"))["models"]

    assert (stopped["name"], stopped["model"]) == ("llama3", "llama3")
    assert ready["modified_at"] == "2023-11-14T22:13:20.000000Z"
    assert ready["size"] == 0
    assert ready["details"] == {
        "parent_model": "",
        "format": "",
        "family": "llamacpp",
        "families": ["llamacpp"],
        "parameter_size": "",
        "quantization_level": "",
        "context_length": 8192,
    }


async def test_a_digest_stays_and_tells_models_apart(api: Api) -> None:
    first = [one["digest"] for one in (await get(api, "/api/tags"))["models"]]
    again = [one["digest"] for one in (await get(api, "/api/tags"))["models"]]

    assert first == again
    assert len(set(first)) == 2
    assert all(len(bytes.fromhex(digest)) == 32 for digest in first)


async def test_ps_lists_what_is_ready_and_when_it_is_stopped(api: Api) -> None:
    stats = ResourceUsage(0.0, None, 3_000_000, 0, 0, 0, 0, 1, gpu_memory=2_000_000)
    api.plane.set("coder", Event.PROBE_OK, idle_stop_in=60.0, stats=stats)

    (model,) = (await get(api, "/api/ps"))["models"]

    expires = datetime.fromisoformat(model["expires_at"])
    assert model["name"] == "coder"
    assert (model["size"], model["size_vram"]) == (3_000_000, 2_000_000)
    assert abs(expires - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=5)


async def test_ps_says_that_what_is_never_stopped_stays_for_ages(api: Api) -> None:
    (model,) = (await get(api, "/api/ps"))["models"]

    assert datetime.fromisoformat(model["expires_at"]) == NEVER


@pytest.mark.parametrize(
    "body", [{"model": "coder"}, {"name": "coder"}, {"model": "coder:latest"}, {"model": "coder/coder"}]
)
async def test_show_tells_about_a_model_by_any_of_its_names(api: Api, body: dict[str, str]) -> None:
    api.plane.listed["coder"] = (Model("coder", context_length=8192),)

    shown = await show(api, body)

    assert shown["details"]["family"] == "llamacpp"
    assert shown["model_info"]["general.architecture"] == "llamacpp"
    assert shown["model_info"]["llamacpp.context_length"] == 8192
    assert shown["capabilities"] == ["completion", "tools"]


async def test_show_does_not_ask_for_a_media_type(api: Api) -> None:
    async with api.client.post("/ollama/api/show", data=b'{"model": "coder"}') as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("model", "abilities", "capabilities"),
    [
        (Model("coder"), Abilities("x"), ["completion", "tools"]),
        (Model("coder", kind="embeddings"), Abilities("x"), ["embedding"]),
        (Model("coder"), Abilities("x", parameters={"tools": Rule(Treatment.DROP)}), ["completion"]),
        (
            Model("coder"),
            Abilities("x", modalities=frozenset({Modality.IMAGE})),
            ["completion", "tools", "vision"],
        ),
        (
            Model("coder", modalities=frozenset()),
            Abilities("x", modalities=frozenset({Modality.IMAGE})),
            ["completion", "tools"],
        ),
    ],
)
async def test_capabilities_are_those_of_engine_and_model(
    api: Api, model: Model, abilities: Abilities, capabilities: list[str]
) -> None:
    api.plane.listed["coder"] = (model,)
    api.plane.abilities["llamacpp"] = abilities

    assert (await show(api, {"model": "coder"}))["capabilities"] == capabilities


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "codr"}, 404, "'coder'"),
        ({"model": "codr:latest"}, 404, "'coder'"),
        ({}, 400, "model is required"),
        ({"model": 7}, 400, "model is required"),
        (["coder"], 400, "model is required"),
    ],
)
async def test_errors_are_told_as_ollama_tells_them(api: Api, body: object, status: int, words: str) -> None:
    answer = await show(api, body, status)

    assert list(answer) == ["error"]
    assert words in answer["error"]


@pytest.mark.parametrize("body", [b"{bad", b"", b"\xff\xfe"])
async def test_a_body_that_is_no_json_is_refused(api: Api, body: bytes) -> None:
    async with api.client.post("/ollama/api/show", data=body) as response:
        assert response.status == 400
        assert "not JSON" in (await response.json())["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/nope", 404), ("GET", "/api/show", 405), ("POST", "/api/ps", 405)],
)
async def test_wrong_paths_and_methods_are_told_as_ollama_tells_errors(
    api: Api, method: str, path: str, status: int
) -> None:
    async with api.client.request(method, f"/ollama{path}") as response:
        assert response.status == status
        assert list(await response.json()) == ["error"]
