from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from tests.rigs.fake_detector import FakeDetector, detection
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane

from ai_proxy.api.middleware import client_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.core.detection import EngineState


@dataclass(frozen=True, slots=True)
class House:
    """The application, with engines to be found."""

    detector: FakeDetector
    client: aiohttp.ClientSession


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    detector = FakeDetector(detection("ollama"), detection("vllm", EngineState.ABSENT))
    app = create_app(FakePlane(), lambda: (b"", "text/plain"), "1.2.3", detector=detector)
    path = tmp_path / "gateway.sock"
    async with (
        serve_unix(path, app, client_principal),
        aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(path))) as client,
    ):
        yield House(detector, client)


async def test_engines_are_listed_as_far_as_they_are_known(house: House) -> None:
    async with house.client.get("/api/v1/engines") as response:
        answer = await response.json()

    assert response.status == 200
    assert [(one["engine"], one["state"]) for one in answer["engines"]] == [
        ("ollama", "RunningHealthy"),
        ("vllm", "Absent"),
    ]
    assert answer["engines"][0] == {
        "engine": "ollama",
        "title": "Ollama",
        "state": "RunningHealthy",
        "address": "http://127.0.0.1:9",
        "detail": "lists 1 model",
        "version": "1.2.3",
        "models": ["tiny"],
        "latency_ms": 2.5,
        "program": None,
        "at": 1_700_000_000.0,
    }
    assert house.detector.asked == [(None, False)]


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (None, False)),
        ("?fresh", (None, True)),
        ("?fresh=1&engine=ollama", ("ollama", True)),
        ("?engine=ollama&fresh=0", ("ollama", False)),
    ],
)
async def test_engines_are_looked_for_as_asked(
    house: House, query: str, asked: tuple[str | None, bool]
) -> None:
    async with house.client.post(f"/api/v1/engines/detect{query}") as response:
        answer = await response.json()

    assert response.status == 200
    assert answer["engines"][0]["engine"] == "ollama"
    assert house.detector.asked == [asked]


async def test_an_engine_that_nobody_looks_for_is_not_found(house: House) -> None:
    async with house.client.post("/api/v1/engines/detect?engine=sglang") as response:
        problem = await response.json()

    assert (response.status, response.headers["X-AI-Proxy-Error"]) == (404, "unknown_engine")
    assert problem["detail"] == "there is no engine 'sglang'; use one of ollama, vllm"
