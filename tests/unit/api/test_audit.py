import json
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view
from tests.unit.api.house import House
from tests.unit.security.broken import Fault, FaultyAudit

from ai_proxy.api.audited import outcome
from ai_proxy.api.middleware import owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.core.errors import RuntimeUnavailableError, StoreDamagedError
from ai_proxy.security.audit import AuditLog

CHANGES = [
    ("POST", "/service/llama3/start", None, "service.start llama3"),
    ("POST", "/service/llama3/stop?wait=0", None, "service.stop llama3"),
    ("POST", "/service/llama3/restart", None, "service.restart llama3"),
    ("POST", "/service/llama3/unload?wait=0", None, "service.unload llama3"),
    ("POST", "/config/reload", None, "config.reload"),
    ("POST", "/engines/detect", None, "engines.detect"),
    ("PUT", "/policy", {}, "policy.set"),
    ("PUT", "/settings/engine.detect", {"value": False}, "settings.put engine.detect"),
    ("DELETE", "/settings/engine.detect", None, "settings.drop engine.detect"),
]


@pytest.mark.parametrize(("method", "path", "body", "what"), CHANGES)
async def test_every_change_is_in_the_log(
    house: House, method: str, path: str, body: object, what: str
) -> None:
    said = await house.ask(method, path, body)

    assert said.status < 400
    (entry,) = await house.log()
    assert (entry.who, entry.what, entry.where_from, entry.result) == (
        "0123456789ab",
        what,
        "192.0.2.7",
        "ok",
    )


async def test_what_is_done_to_keys_is_in_the_log_by_their_ids(house: House) -> None:
    made = await house.ask("POST", "/keys", {"label": "laptop"}, as_owner=True)
    fresh = await house.ask("POST", f"/keys/{made.body['key']['id']}/rotate", as_owner=True)
    await house.ask("DELETE", f"/keys/{fresh.body['key']['id']}", as_owner=True)

    log = await house.log()

    assert [(entry.what, entry.detail) for entry in log] == [
        (f"key.create {made.body['key']['id']}", "'laptop' for inference"),
        (f"key.rotate {made.body['key']['id']}", f"replaced by {fresh.body['key']['id']}"),
        (f"key.revoke {fresh.body['key']['id']}", ""),
    ]
    assert {(entry.who, entry.where_from) for entry in log} == {("owner", "local")}


@pytest.mark.parametrize(
    ("method", "path", "body", "what", "result", "detail"),
    [
        ("POST", "/service/lama3/stop", None, "service.stop lama3", "unknown_service", "did you mean"),
        ("POST", "/keys", {"label": ""}, "key.create", "invalid_request", "body.label"),
        ("PUT", "/policy", {"x": 1}, "policy.set", "invalid_policy", "x: unknown"),
        ("PUT", "/policy", {"allowlist": ["::1"]}, "policy.set", "policy_locks_out", "192.0.2.7"),
        ("POST", "/engines/detect?engine=x", None, "engines.detect", "unknown_engine", "'x'"),
    ],
)
async def test_a_change_that_failed_is_in_the_log_with_the_reason(
    house: House, method: str, path: str, body: object, what: str, result: str, detail: str
) -> None:
    await house.ask(method, path, body)

    (entry,) = await house.log()
    assert (entry.what, entry.result) == (what, result)
    assert detail in entry.detail


@pytest.mark.parametrize(
    ("error", "result"),
    [(RuntimeUnavailableError("Docker is away"), "runtime_unavailable"), (RuntimeError("a bug"), "internal")],
)
async def test_a_change_that_went_wrong_inside_is_in_the_log(
    house: House, error: Exception, result: str
) -> None:
    house.plane.reload_result = error

    await house.ask("POST", "/config/reload")

    assert [(entry.what, entry.result) for entry in await house.log()] == [("config.reload", result)]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/services"), ("HEAD", "/services"), ("PATCH", "/policy"), ("POST", "/nowhere")],
)
async def test_what_changes_nothing_is_not_in_the_log(house: House, method: str, path: str) -> None:
    await house.ask(method, path)

    assert await house.log() == []


async def test_a_question_of_ollamas_api_is_no_change(house: House) -> None:
    async with house.owner.post("/ollama/api/show", json={"model": "llama3"}) as response:
        assert response.status == 200

    assert await house.log() == []


async def test_an_answer_is_sent_although_the_log_cannot_be_written(house: House, tmp_path: Path) -> None:
    fault, security = Fault(), house.state.security
    log = AuditLog(FaultyAudit(house.state.store.audit, fault), house.clock)
    broken = replace(house.state, security=replace(security, audit=log))
    app = create_app(FakePlane(view("llama3")), lambda: (b"", "text/plain"), "1", state=broken)
    fault.on = True

    status, _ = await asked(app, tmp_path, "POST", "/api/v1/service/llama3/start")

    assert status == 202
    assert await house.log() == []


async def asked(app: ASGIApp, folder: Path, method: str, path: str) -> tuple[int, dict[str, str]]:
    socket = folder / "other.sock"
    async with (
        serve_unix(socket, app, owner_principal),
        aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(socket))) as session,
        session.request(method, path) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    "path", ["/keys", "/usage", "/policy", "/policy/history", "/audit", "/settings", "/audit?follow"]
)
async def test_without_a_store_it_is_said_why(tmp_path: Path, path: str) -> None:
    why = StoreDamagedError("the file ai-proxy.db is not a database; restore a backup")
    app = create_app(FakePlane(), lambda: (b"", "text/plain"), "1", state=why)

    status, problem = await asked(app, tmp_path, "GET", f"/api/v1{path}")

    assert (status, problem["code"], problem["detail"]) == (503, "store_unavailable", why.detail)


async def test_services_are_managed_without_a_store(tmp_path: Path) -> None:
    app = create_app(FakePlane(view("llama3")), lambda: (b"", "text/plain"), "1")

    assert (await asked(app, tmp_path, "POST", "/api/v1/service/llama3/start"))[0] == 202


async def five_entries(house: House) -> None:
    for number in range(5):
        await house.state.security.audit.record("owner", f"test.do {number}", "local")
        await house.clock.advance(10)


@pytest.mark.parametrize(
    ("query", "numbers", "after"),
    [
        ("", "01234", 5),
        ("limit=2", "34", 5),
        ("limit=2&after=0", "01", 2),
        ("limit=2&after=2", "23", 4),
        ("after=5", "", 5),
        ("since=1700001020", "234", 5),
        ("until=1700001020", "01", 2),
        ("since=1700001010&until=1700001040&limit=2", "23", 4),
    ],
)
async def test_the_log_is_read_in_parts(house: House, query: str, numbers: str, after: int) -> None:
    await five_entries(house)

    said = await house.ask("GET", f"/audit?{query}")

    assert "".join(one["what"][-1] for one in said.body["entries"]) == numbers
    assert said.body["next"] == after


async def test_the_log_is_exported_as_lines(house: House) -> None:
    await five_entries(house)

    async with house.client.get("/api/v1/audit?format=ndjson&since=1700001020") as response:
        lines = (await response.text()).splitlines()

    assert response.content_type == "application/x-ndjson"
    assert [json.loads(line)["seq"] for line in lines] == [3, 4, 5]


@pytest.mark.parametrize(
    ("query", "headers", "numbers"),
    [("&after=3", {}, "34"), ("&after=1", {"Last-Event-ID": "4"}, "4"), ("", {"Last-Event-ID": "3"}, "34")],
)
async def test_the_log_is_followed(house: House, query: str, headers: dict[str, str], numbers: str) -> None:
    await five_entries(house)

    async with house.client.get(f"/api/v1/audit?follow{query}", headers=headers) as response:
        events = [await response.content.readuntil(b"\n\n") for _ in range(1 + len(numbers))]
        await house.ask("POST", "/engines/detect")
        await house.clock.advance(1)
        last = await response.content.readuntil(b"\n\n")

    assert response.content_type == "text/event-stream"
    assert [
        json.loads(one.splitlines()[1].removeprefix(b"data: "))["what"][-1] for one in events[1:]
    ] == list(numbers)
    assert b"engines.detect" in last


@given(st.integers(200, 599), st.binary(max_size=50), st.sampled_from([b"", b"some_code"]))
def test_any_answer_has_an_outcome(status: int, body: bytes, code: bytes) -> None:
    headers = [(b"X-AI-Proxy-Error", code)] if code else []

    result, _ = outcome({"status": status, "headers": headers}, body)

    assert (result == "ok") == (not code and status < 400)
