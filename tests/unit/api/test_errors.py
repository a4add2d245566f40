import pytest
from loguru import logger
from tests.unit.api.conftest import Api

from ai_proxy.core.errors import ServiceFailedError


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "unknown_path"),
        ("GET", "/api/v1/nope", 404, "unknown_path"),
        ("GET", "/docs/assets/nope.js", 404, "unknown_path"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("GET", "/api/v1/service/llama3/start", 405, "method_not_allowed"),
        ("POST", "/api/v1/service/llama3/start?wait=soon", 422, "invalid_request"),
        ("POST", "/api/v1/service/llama3/start?wait=-1", 422, "invalid_request"),
        ("POST", "/api/v1/service/llama3/start?wait=nan", 422, "invalid_request"),
        ("GET", "/api/v1/service/llama3/logs?tail=x", 422, "invalid_request"),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int, code: str) -> None:
    async with api.owner.request(method, path) as response:
        body = await response.json(content_type="application/problem+json")

    assert response.status == body["status"] == status
    assert response.headers["X-AI-Proxy-Error"] == body["code"] == code
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["X-Request-ID"]


async def test_invalid_request_names_each_wrong_part(api: Api) -> None:
    async with api.owner.get("/api/v1/service/llama3/logs?tail=x&follow=maybe") as response:
        body = await response.json(content_type="application/problem+json")

    assert [line.split(":")[0] for line in body["errors"]] == ["query.tail", "query.follow"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/health", "GET"),
        ("PATCH", "/api/v1/keys", "GET, POST"),
        ("OPTIONS", "/api/v1/settings/log.level", "PUT, DELETE"),
    ],
)
async def test_method_not_allowed_says_every_one_that_is(
    api: Api, method: str, path: str, allowed: str
) -> None:
    async with api.owner.request(method, path) as response:
        assert response.headers["Allow"] == allowed


async def test_error_brings_retry_after_in_whole_seconds_and_the_log(api: Api) -> None:
    api.plane.start_error = ServiceFailedError("it crashed", retry_after=3.2, log_tail=("one", "two"))

    async with api.owner.post("/api/v1/service/llama3/start?wait=1") as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.headers["Retry-After"], body["retry_after"]) == ("4", 4)
    assert body["log_tail"] == ["one", "two"]


async def test_unexpected_error_tells_the_client_nothing_and_the_log_everything(api: Api) -> None:
    records: list[str] = []
    sink = logger.add(records.append, format="{extra[request_id]} {message}\n{exception}", diagnose=False)
    api.plane.reload_result = RuntimeError("secret internals")

    async with api.owner.post("/api/v1/config/reload") as response:
        text = await response.text()
        request_id = response.headers["X-Request-ID"]
    logger.remove(sink)

    assert response.status == 500
    assert response.headers["X-AI-Proxy-Error"] == "internal"
    assert "secret" not in text
    assert request_id in text
    logged = [record for record in records if "secret internals" in record]
    assert len(logged) == 1
    assert logged[0].startswith(request_id)
