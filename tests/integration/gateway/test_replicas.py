"""A request whose replica fails goes to another one, before the client has seen anything."""

import pytest
from tests.rigs.raw_backend import answer, answer_and_close, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.service import Outcome, Upstream

BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 4\r\n\r\nbusy"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nboom!"
JSON = (b"Content-Type: application/json",)


def give_spare(rig: WireRig) -> None:
    """Make the backend `spare` a second replica of `svc`."""
    rig.admission.spares["svc"] = [rig.admission.upstreams["spare"]]
    rig.backends["spare"].script = answer(ok(b"from the spare"), ok(b"from the spare"))


async def test_one_that_cannot_be_reached_is_replaced() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.admission.upstreams["svc"] = Upstream("127.0.0.1", 1)

        response = await rig.ask(build_request())

        assert response.body == b"from the spare"
        assert rig.admission.moves == [(Outcome.CONNECT_FAILED, 0.0)]


@pytest.mark.parametrize(("refusal", "asked"), [(BUSY, 30.0), (FULL, 0.0)], ids=["429", "503"])
async def test_one_that_has_no_room_is_replaced_and_left_alone_as_long_as_it_asks(
    refusal: bytes, asked: float
) -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.backend.script = answer(refusal)

        response = await rig.ask(build_request(b"/service/svc/x", *JSON, body=b'{"a": 1}'))

        assert response.body == b"from the spare"
        assert rig.admission.moves == [(Outcome.OVERLOADED, asked)]
        assert rig.backends["spare"].requests[0].body == b'{"a": 1}'


@pytest.mark.parametrize("refusal", [BUSY, FULL], ids=["429", "503"])
async def test_without_another_replica_the_refusal_itself_is_passed_on(refusal: bytes) -> None:
    async with wire_rig() as rig:
        rig.backend.script = answer(refusal)

        response = await rig.ask(build_request())

        assert response.status in (429, 503)
        assert response.body in (b"busy", b"full")
        assert response.error_code is None
        assert rig.admission.outcomes == [("svc", Outcome.OVERLOADED)]


async def test_an_error_is_passed_on_and_told() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.backend.script = answer(BROKEN)

        response = await rig.ask(build_request(b"/service/svc/x", *JSON, body=b"{}"))

        assert (response.status, response.body) == (500, b"boom!")
        assert rig.admission.outcomes == [("svc", Outcome.SERVER_ERROR)]


async def test_a_get_whose_replica_dies_before_it_answers_is_sent_to_another() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.backend.script = answer_and_close(b"")

        response = await rig.ask(build_request())

        assert response.body == b"from the spare"
        assert rig.admission.moves == [(Outcome.BROKEN, 0.0)]


async def test_a_post_whose_replica_dies_is_not_sent_twice() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.backend.script = answer_and_close(b"")

        response = await rig.ask(build_request(b"/service/svc/x", *JSON, body=b"{}"))

        assert response.error_code == b"upstream_closed"
        assert rig.backends["spare"].requests == []


async def test_a_streamed_body_that_was_sent_is_not_sent_again() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        give_spare(rig)
        rig.backend.script = answer(FULL)
        client = await rig.client()

        await client.send(b"POST /service/svc/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        await eventually(lambda: rig.backend.connections)
        await client.send(b"67890")
        response = await client.response()

        assert response.status == 503
        assert rig.backends["spare"].requests == []


@pytest.mark.threat("a local user", "a request, by taking the address of an ended backend")
async def test_a_request_does_not_reach_another_program_at_the_address_of_an_ended_backend() -> None:
    async with wire_rig() as rig:
        rig.admission.standing = False

        response = await rig.ask(build_request())

        assert response.error_code == b"upstream_closed"
        assert rig.backend.requests == []
