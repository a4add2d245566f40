import json

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rigs.plane import view
from tests.unit.api.conftest import Api

from ai_proxy.api.schemas import ContainerStatus, container_status
from ai_proxy.api.services import restarted, started
from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError, ServiceFailedError
from ai_proxy.core.lifecycle import RUNNING, Event, State


async def test_lists_services_in_the_order_of_the_configuration(api: Api) -> None:
    async with api.owner.get("/api/v1/services") as response:
        body = await response.json()

    assert response.status == 200
    assert [(one["id"], one["state"]) for one in body["services"]] == [
        ("llama3", "stopped"),
        ("coder", "ready"),
    ]


async def test_shows_a_service_with_all_its_facts(api: Api) -> None:
    async with api.owner.get("/api/v1/service/llama3") as response:
        body = await response.json()

    assert response.status == 200
    assert set(body) == set(view("llama3").__slots__)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/service/lama3"),
        ("GET", "/api/v1/container/lama3"),
        ("GET", "/api/v1/service/lama3/logs"),
        ("POST", "/api/v1/service/lama3/start"),
        ("POST", "/api/v1/service/lama3/stop"),
        ("POST", "/api/v1/service/lama3/restart"),
        ("POST", "/api/v1/service/lama3/unload"),
    ],
)
async def test_unknown_service_is_404_with_near_names(api: Api, method: str, path: str) -> None:
    async with api.owner.request(method, path) as response:
        body = await response.json(content_type="application/problem+json")

    assert response.status == body["status"] == 404
    assert response.headers["X-AI-Proxy-Error"] == body["code"] == "unknown_service"
    assert "llama3" in body["detail"]


async def test_start_answers_202_at_once(api: Api) -> None:
    async with api.owner.post("/api/v1/service/llama3/start") as response:
        body = await response.json()

    assert (response.status, body) == (202, {"message": "Container 'llama3' starting"})
    assert api.plane.service("llama3").state is State.STARTING


async def test_start_that_is_waited_for_answers_when_ready(api: Api) -> None:
    async with api.owner.post("/api/v1/service/llama3/start?wait=5") as response:
        body = await response.json()

    assert (response.status, body) == (200, {"message": "Container 'llama3' started"})


async def test_start_of_a_running_service_answers_200(api: Api) -> None:
    async with api.owner.post("/api/v1/service/coder/start") as response:
        body = await response.json()

    assert (response.status, body) == (200, {"message": "Container 'coder' is already running"})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeFailureError("no such image: x; pull it"), 500, "runtime_failure"),
        (ServiceFailedError("exited with 1", retry_after=1.5, log_tail=["no memory"]), 500, "service_failed"),
        (RuntimeUnavailableError("the Docker daemon is away"), 503, "runtime_unavailable"),
    ],
)
async def test_start_that_fails_tells_why(
    api: Api, error: RuntimeFailureError | ServiceFailedError, status: int, code: str
) -> None:
    api.plane.start_error = error

    async with api.owner.post("/api/v1/service/llama3/start?wait=5") as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.status, body["code"], body["detail"]) == (status, code, error.detail)
    assert body.get("log_tail", []) == list(error.log_tail)
    assert response.headers.get("Retry-After") == ("2" if error.retry_after else None)


async def test_stop_waits_for_proof_and_answers_200_even_if_it_was_stopped(api: Api) -> None:
    for _ in range(2):
        async with api.owner.post("/api/v1/service/coder/stop") as response:
            assert (response.status, await response.json()) == (200, {"message": "Container 'coder' stopped"})

    assert api.plane.service("coder").held


async def test_stop_that_is_not_waited_for_says_stopping(api: Api) -> None:
    async with api.owner.post("/api/v1/service/coder/stop?wait=0") as response:
        assert (response.status, await response.json()) == (200, {"message": "Container 'coder' stopping"})


async def test_restart_answers_202_or_when_waited_for_200(api: Api) -> None:
    async with api.owner.post("/api/v1/service/coder/restart") as response:
        assert (response.status, await response.json()) == (202, {"message": "Container 'coder' restarting"})
    async with api.owner.post("/api/v1/service/coder/restart?wait=5") as response:
        assert (response.status, await response.json()) == (200, {"message": "Container 'coder' restarted"})


async def test_unload_answers_200_when_nothing_runs_and_202_before(api: Api) -> None:
    async with api.owner.post("/api/v1/service/coder/unload?wait=0") as response:
        assert (response.status, await response.json()) == (202, {"message": "Container 'coder' unloading"})
    async with api.owner.post("/api/v1/service/coder/unload") as response:
        assert (response.status, await response.json()) == (200, {"message": "Container 'coder' unloaded"})


async def test_container_tells_status_and_last_failure(api: Api) -> None:
    api.plane.set("coder", Event.EXITED, state=State.FAILED, failure="killed by signal 9", exit_code=-9)

    async with api.owner.get("/api/v1/container/coder") as response:
        body = await response.json()

    assert (body["service_id"], body["status"], body["exit_code"]) == ("coder", "error", -9)
    assert body["detail"] == "killed by signal 9"


@given(st.sampled_from(State), st.integers(0, 3))
def test_container_status_never_hides_that_something_runs(state: State, starts: int) -> None:
    status = container_status(state, starts)

    over = {ContainerStatus.EXITED, ContainerStatus.NOT_FOUND}
    assert not (state in RUNNING and status in over)


def test_start_of_a_service_that_was_about_to_stop_counts_as_started() -> None:
    assert started(view("a", State.DRAINING), view("a", State.READY)) == (200, "Container 'a' started")


def test_restart_is_not_done_while_the_old_instance_is_ready() -> None:
    old = view("a", State.READY, starts=1)

    assert restarted(old, old)[0] == 202
    assert restarted(old, view("a", State.READY, starts=2))[0] == 200


async def test_logs_are_the_last_lines(api: Api) -> None:
    ring = api.plane.logs("llama3")
    for text in ("one", "two", "three"):
        ring.append(text, at=1.5)

    async with api.owner.get("/api/v1/service/llama3/logs?tail=2") as response:
        body = await response.json()

    assert body == {
        "service_id": "llama3",
        "lines": [{"seq": 2, "at": 1.5, "text": "two"}, {"seq": 3, "at": 1.5, "text": "three"}],
    }


@pytest.mark.parametrize("query", ["follow", "follow=", "follow=1", "follow=true"])
async def test_follow_gives_the_tail_and_then_every_new_line(api: Api, query: str) -> None:
    ring = api.plane.logs("llama3")
    ring.append("before", at=0.0)

    async with api.owner.get(f"/api/v1/service/llama3/logs?tail=5&{query}") as response:
        seen = [json.loads((await _event(response.content))["data"])["text"]]
        for number in range(3):
            ring.append(f"line {number}", at=0.0)
        seen += [json.loads((await _event(response.content))["data"])["text"] for _ in range(3)]

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert seen == ["before", "line 0", "line 1", "line 2"]


async def test_follow_resumes_after_the_last_event_that_was_seen(api: Api) -> None:
    ring = api.plane.logs("llama3")
    for text in ("one", "two"):
        ring.append(text, at=0.0)

    headers = {"Last-Event-ID": "1"}
    async with api.owner.get("/api/v1/service/llama3/logs?follow", headers=headers) as response:
        assert (await _event(response.content))["id"] == "2"


async def _event(content: aiohttp.StreamReader) -> dict[str, str]:
    """Read one server-sent event; comments are skipped."""
    fields: dict[str, str] = {}
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if not line and fields:
            return fields
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    raise AssertionError("the stream ended")
