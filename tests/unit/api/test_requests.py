from typing import Any

import pytest
from tests.rigs.usage import finished
from tests.unit.api.conftest import Api

from ai_proxy.core.usage import LiveRequest, Progress
from ai_proxy.telemetry.telemetry import RecentRequests


def under_way(request_id: str, started: float, **facts: str) -> LiveRequest:
    named = {"model": "llama3", "service_id": "llama", **facts}
    return LiveRequest(
        request_id,
        "/v1/chat/completions",
        named["model"],
        named["service_id"],
        Progress.STREAMING,
        started,
        2.5,
        5120,
    )


async def ask(api: Api, query: str = "") -> Any:
    async with api.client.get(f"/api/v1/requests{query}") as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def ids(requests: list[Any]) -> list[str]:
    return [request["request_id"] for request in requests]


async def test_a_finished_request_is_told_with_what_it_took(api: Api) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    api.recent.add([finished(traceparent=traceparent)])

    (told,) = (await ask(api))["recent"]

    assert told == {
        "request_id": "req-1",
        "endpoint": "/v1/chat/completions",
        "model": "llama3",
        "service_id": "llama",
        "engine": "llamacpp",
        "streamed": True,
        "status": 200,
        "error": "",
        "started": 1_700_000_000.0,
        "seconds": 3.0,
        "waited": 0.5,
        "loaded": True,
        "time_to_first_token": 1.0,
        "tokens_in": 9,
        "tokens_out": 21,
        "tokens_per_second": 10.0,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


async def test_what_is_not_known_of_a_request_is_null(api: Api) -> None:
    api.recent.add(
        [finished(streamed=False, tokens_in=-1, tokens_out=-1, first_token=-1.0, traceparent="x" * 60)]
    )

    (told,) = (await ask(api))["recent"]

    assert [
        told[name] for name in ("tokens_in", "tokens_out", "tokens_per_second", "time_to_first_token")
    ] == [None] * 4
    assert told["trace_id"] is None


async def test_newest_requests_come_first(api: Api) -> None:
    for name in ("first", "second"):
        api.recent.add([finished(request_id=name)])
    api.live.extend([under_way("older", 10.0), under_way("newer", 20.0)])

    answer = await ask(api)

    assert ids(answer["recent"]) == ["second", "first"]
    assert ids(answer["live"]) == ["newer", "older"]
    assert answer["live"][0]["state"] == "streaming"


async def test_only_live_ones_are_told_when_only_they_are_asked_for(api: Api) -> None:
    api.recent.add([finished()])
    api.live.append(under_way("now", 10.0))

    for query in ("?live=true", "?live"):
        answer = await ask(api, query)
        assert (ids(answer["live"]), answer["recent"]) == (["now"], [])


@pytest.mark.parametrize(
    ("query", "live", "recent"),
    [
        ("?service=llama", ["l1"], ["r1"]),
        ("?model=coder", ["l2"], ["r2"]),
        ("?service=llama&model=coder", [], []),
        ("?limit=1", ["l2"], ["r2"]),
        ("?limit=0", [], []),
    ],
)
async def test_requests_can_be_narrowed_down(
    api: Api, query: str, live: list[str], recent: list[str]
) -> None:
    api.live.extend([under_way("l1", 10.0), under_way("l2", 20.0, model="coder", service_id="other")])
    api.recent.add([finished(request_id="r1")])
    api.recent.add([finished(request_id="r2", model="coder", service_id="other")])

    answer = await ask(api, query)

    assert (ids(answer["live"]), ids(answer["recent"])) == (live, recent)


async def test_limit_that_makes_no_sense_is_refused(api: Api) -> None:
    async with api.client.get("/api/v1/requests?limit=-1") as answer:
        assert answer.status == 422


def test_only_the_last_requests_are_remembered() -> None:
    recent = RecentRequests(size=2)
    for name in ("first", "second", "third"):
        recent.add([finished(request_id=name)])

    assert [request.request_id for request in recent.newest()] == ["third", "second"]
