"""The raw target decides where a request goes, and arrives as it was sent."""

import json

import pytest
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.errors import QueueFullError, ServiceStoppedError

KEPT = {
    b"/service/svc/v1/models": b"/v1/models",
    b"/service/svc/": b"/",
    b"/service/svc": b"/",
    b"/service/svc?x=1": b"/?x=1",
    b"/service/svc?x=/a": b"/?x=/a",
    b"/service/svc/?": b"/?",
    b"/service/svc/a?b=c&d=%20e+f": b"/a?b=c&d=%20e+f",
    b"/service/svc//a//b": b"//a//b",
    b"/service/svc/./a": b"/./a",
    b"/service/svc/%2e%2ex/%2F%00%zz": b"/%2e%2ex/%2F%00%zz",
    b"/service/svc/a;b=c:d@e!$'()*,": b"/a;b=c:d@e!$'()*,",
    b"/service/svc/??&=": b"/??&=",
    b"/service/svc/service/svc/x": b"/service/svc/x",
    b"http://somewhere:1234/service/svc/a?b": b"/a?b",
    b"HTTPS://somewhere/service/svc": b"/",
}


@pytest.mark.parametrize(("target", "arrives"), KEPT.items(), ids=[t.decode() for t in KEPT])
async def test_path_and_query_arrive_as_sent(rig: WireRig, target: bytes, arrives: bytes) -> None:
    response = await rig.ask(build_request(target))

    assert response.status == 200
    assert [request.target for request in rig.backend.requests] == [arrives]


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/api/v1/services?x=1",
        b"/docs",
        b"/redoc",
        b"/openapi.json",
        b"/health",
        b"/ready",
        b"/metrics",
    ],
)
async def test_the_management_app_answers_on_its_paths(rig: WireRig, target: bytes) -> None:
    response = await rig.ask(build_request(target))

    assert response.body == b"GET %b HTTP/1.1|" % target
    assert rig.admission.outcomes == []


async def test_an_unknown_service_is_404_with_near_names() -> None:
    async with wire_rig(services=("llama3", "coder")) as rig:
        response = await rig.ask(build_request(b"/service/lama3/v1/models?x=1"))

    assert (response.status, response.error_code) == (404, b"unknown_service")
    problem = json.loads(response.body)
    assert problem["code"] == "unknown_service"
    assert "llama3" in problem["detail"]
    assert "coder" not in problem["detail"]
    assert problem["request_id"].encode() == response.header(b"x-request-id")


@pytest.mark.parametrize(
    "target", [b"/service/%73vc/", b"/service/svcx", b"/service/SVC/", b"/service//svc/", b"/service/"]
)
async def test_a_service_is_named_exactly(rig: WireRig, target: bytes) -> None:
    response = await rig.ask(build_request(target))

    assert (response.status, response.error_code) == (404, b"unknown_service")
    assert rig.backend.requests == []


@pytest.mark.parametrize(
    "target", [b"/x", b"/services/svc/", b"/apiary", b"*", b"//service/svc/", b"ftp://x/api"]
)
async def test_an_unknown_path_is_404_and_the_connection_goes_on(rig: WireRig, target: bytes) -> None:
    client = await rig.client()

    refusal = await client.ask(build_request(target, method=b"OPTIONS"))

    assert (refusal.status, refusal.error_code) == (404, b"unknown_path")
    assert (await client.ask(build_request())).status == 200


@pytest.mark.parametrize(
    "method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"]
)
async def test_every_method_passes(rig: WireRig, method: bytes) -> None:
    assert (await rig.ask(build_request(method=method))).body == method + b" /x HTTP/1.1|"


async def test_the_base_path_of_an_upstream_stands_before_every_path() -> None:
    async with wire_rig(base_path="/llm") as rig:
        await rig.ask(build_request(b"/service/svc/v1/models?x=1"))

        (request,) = rig.backend.requests
        assert request.target == b"/llm/v1/models?x=1"


async def test_the_host_header_names_the_upstream(rig: WireRig) -> None:
    await rig.ask(build_request())

    (request,) = rig.backend.requests
    assert request.header(b"host") == b"127.0.0.1:%d" % rig.admission.upstreams["svc"].port


async def test_a_republished_table_serves_new_services_and_forgets_old_ones() -> None:
    async with wire_rig(services=("old",)) as rig:
        client = await rig.client()
        assert (await client.ask(build_request(b"/service/old/"))).status == 200

        rig.gateway.publish([])

        assert (await client.ask(build_request(b"/service/old/"))).error_code == b"unknown_service"


async def test_a_refused_admission_is_told_with_retry_after_and_log_lines(rig: WireRig) -> None:
    rig.admission.refusals["svc"] = QueueFullError("too many wait", retry_after=1.2, log_tail=["a", "b"])

    response = await rig.ask(build_request())

    assert (response.status, response.error_code) == (503, b"queue_full")
    assert response.header(b"retry-after") == b"2"
    assert json.loads(response.body)["log_tail"] == ["a", "b"]


async def test_a_request_that_waits_for_admission_is_served_once_it_is_admitted(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(build_request())
    await rig.admission.wait_for_waiting(1)

    rig.admission.open("svc")

    assert (await client.response()).status == 200


async def test_a_request_whose_admission_fails_while_it_waits_is_told_so(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(build_request())
    await rig.admission.wait_for_waiting(1)

    rig.admission.refuse("svc", ServiceStoppedError("stopped by hand"))

    assert (await client.response()).error_code == b"service_stopped"
