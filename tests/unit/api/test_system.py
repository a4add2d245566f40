import json

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.rigs.plane import view
from tests.unit.api.conftest import Api

from ai_proxy.api.monitoring import not_ready
from ai_proxy.control.views import ReloadReport
from ai_proxy.core.errors import InvalidConfigError
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.service import StartPolicy
from ai_proxy.platform.tasks import Restarts


async def test_health_says_the_version(api: Api) -> None:
    async with api.client.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok", "version": "1.2.3"})


async def test_ready_waits_for_services_that_should_always_run(api: Api) -> None:
    api.plane.set("llama3", Event.START, state=State.LOADING, start=StartPolicy.ALWAYS)
    async with api.client.get("/ready") as response:
        assert response.status == 503
        assert await response.json() == {"ready": False, "waiting_for": ["llama3"], "restarted": []}

    api.plane.set("llama3", Event.PROBE_OK, state=State.READY)
    async with api.client.get("/ready") as response:
        assert response.status == 200
        assert await response.json() == {"ready": True, "waiting_for": [], "restarted": []}


def test_nobody_waits_for_services_that_are_stopped_by_hand_or_start_on_demand() -> None:
    held = view("held", start=StartPolicy.ALWAYS, held=True)
    draining = view("draining", State.DRAINING, start=StartPolicy.ALWAYS)

    assert not_ready([held, draining, view("on demand")]) == []


@pytest.mark.parametrize(("waiting", "status"), [(True, 503), (False, 200)])
async def test_ready_names_background_work_that_was_restarted_but_not_why_it_failed(
    api: Api, *, waiting: bool, status: int
) -> None:
    api.restarts["sweep"] = Restarts(2, "KeyError: 'secret'", 1700000000.0, waiting)

    async with api.client.get("/ready") as response:
        body = await response.json()

    assert (response.status, body["ready"]) == (status, not waiting)
    assert body["restarted"] == [{"task": "sweep", "count": 2, "at": 1700000000.0, "waiting": waiting}]


async def test_metrics_are_in_the_text_format(api: Api) -> None:
    async with api.client.get("/metrics") as response:
        text = await response.text()

    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"ai_proxy_build_info", "ai_proxy_service_state"} <= names


async def test_events_begin_with_recent_ones_and_go_on(api: Api) -> None:
    for state in (State.STARTING, State.LOADING):
        api.plane.set("llama3", Event.START, state=state)

    async with api.owner.get("/api/v1/events?recent=1") as response:
        past = await _next_event(response)
        api.plane.set("llama3", Event.PROBE_OK, state=State.READY)
        now = await _next_event(response)

    assert (past["seq"], past["state"]) == (2, "loading")
    assert (now["seq"], now["state"], now["event"]) == (3, "ready", "probe_ok")


async def test_events_resume_after_the_last_that_was_seen(api: Api) -> None:
    for state in (State.STARTING, State.LOADING, State.READY):
        api.plane.set("llama3", Event.START, state=state)

    async with api.owner.get("/api/v1/events", headers={"Last-Event-ID": "2"}) as response:
        assert (await _next_event(response))["seq"] == 3


async def _next_event(response: aiohttp.ClientResponse) -> dict[str, object]:
    block = b":"
    while block.startswith(b":"):  # a comment
        block = await response.content.readuntil(b"\n\n")
    event: dict[str, object] = json.loads(block.splitlines()[1].removeprefix(b"data: "))
    return event


async def test_reload_lists_what_changed(api: Api) -> None:
    api.plane.reload_result = ReloadReport(
        added=("new",), removed=("old",), restarted=("b",), updated=("a",), unchanged=("c",)
    )

    async with api.owner.post("/api/v1/config/reload") as response:
        body = await response.json()

    assert response.status == 200
    assert body == {
        "added": ["new"],
        "changed": ["a", "b"],
        "removed": ["old"],
        "restarted": ["b"],
        "updated": ["a"],
        "unchanged": ["c"],
        "needs_restart": [],
    }


async def test_reload_of_a_bad_configuration_is_422_with_every_line(api: Api) -> None:
    api.plane.reload_result = InvalidConfigError("config.yaml:1:1: bad\nconfig.yaml:2:1: worse")

    async with api.owner.post("/api/v1/config/reload") as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.status, body["code"]) == (422, "invalid_config")
    assert body["detail"].splitlines() == ["config.yaml:1:1: bad", "config.yaml:2:1: worse"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_loads_nothing_from_elsewhere(api: Api, path: str) -> None:
    async with api.client.get(path) as response:
        page = await response.text()

    assert response.status == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert not [word for word in page.split('"') if word.startswith(("http:", "https:", "//"))]


@pytest.mark.parametrize("asset", ["swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"])
async def test_documentation_brings_its_assets(api: Api, asset: str) -> None:
    async with api.client.head(f"/docs/assets/{asset}") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 100_000
