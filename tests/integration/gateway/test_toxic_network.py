"""Networks that are late, slow, silent or cut, on either side of the proxy: what the client sees of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.rigs.raw_backend import answer, by_hand, echo, ok
from tests.rigs.raw_http import TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import Limits
from ai_proxy.testing.relay import Relay, Toxic, cut, dribble, half_open, latency, reset, running_relay

SOON = 0.3
"""Seconds for which the proxy waits, where a test is about its giving up."""
UPLOAD = build_request(body=b"x" * 1000)
BODY = b"0123456789" * 50
LENGTH = ok(BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n%b\r\n0\r\n\r\n" % BODY
HARMLESS = {
    "late": (latency(0.01),),
    "byte by byte": (dribble(),),
    "late, a few bytes at a time": (latency(0.01), dribble(7)),
}
ENDS: list[Callable[[int | bytes], Toxic]] = [cut, reset]


@asynccontextmanager
async def before_engine(
    limits: Limits | None = None, patience: float = 60.0
) -> AsyncIterator[tuple[WireRig, Relay]]:
    """Run a proxy whose engine is behind a relay."""
    async with (
        wire_rig(limits, response_timeout=patience, stream_idle_timeout=patience) as rig,
        running_relay(rig.admission.upstreams["svc"].port) as relay,
    ):
        rig.admission.upstreams["svc"] = Upstream("127.0.0.1", relay.port)
        yield rig, relay


@asynccontextmanager
async def before_proxy(limits: Limits | None = None) -> AsyncIterator[tuple[WireRig, Relay]]:
    """Run a proxy whose clients are behind a relay."""
    async with wire_rig(limits) as rig, running_relay(rig.port) as relay:
        yield rig, relay


# Between the proxy and the engine.


@pytest.mark.parametrize("toxics", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("response", [LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_a_slow_way_to_the_engine_changes_nothing(toxics: tuple[Toxic, ...], response: bytes) -> None:
    async with before_engine() as (rig, relay):
        relay.to_server = relay.to_client = toxics
        rig.backend.script = answer(response)

        told = await rig.ask(UPLOAD)

        assert (told.status, told.body) == (200, BODY)
        assert rig.backend.requests[0].body == b"x" * 1000


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("after", [0, 10])
async def test_a_response_that_is_cut_in_its_head_is_502(end: Callable[[int], Toxic], after: int) -> None:
    async with before_engine() as (rig, relay):
        relay.to_client = (end(after),)

        told = await rig.ask(build_request())

        assert (told.status, told.error_code) == (502, b"upstream_closed")


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("response", [LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_a_response_that_is_cut_in_its_body_breaks_off(
    end: Callable[[bytes], Toxic], response: bytes
) -> None:
    async with before_engine() as (rig, relay):
        relay.to_client = (dribble(100), end(b"0123456789" * 20))
        rig.backend.script = answer(response)

        with pytest.raises(TruncatedError) as broken:
            await rig.ask(build_request())

        assert BODY.startswith(broken.value.message.body)


async def test_an_engine_that_is_silent_from_the_start_is_504() -> None:
    async with before_engine(patience=SOON) as (rig, relay):
        relay.to_client = (half_open(0),)

        told = await rig.ask(build_request())

        assert (told.status, told.error_code) == (504, b"upstream_timeout")


async def test_an_engine_that_never_hears_the_request_is_504() -> None:
    async with before_engine(patience=SOON) as (rig, relay):
        relay.to_server = (half_open(10),)

        told = await rig.ask(build_request())

        assert (told.status, told.error_code) == (504, b"upstream_timeout")
        assert rig.backend.requests == []


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
async def test_a_response_that_falls_silent_in_its_body_breaks_off() -> None:
    async with before_engine(patience=SOON) as (rig, relay):
        relay.to_client = (half_open(b"0123456789" * 20),)
        rig.backend.script = answer(CHUNKED)

        with pytest.raises(TruncatedError):
            await rig.ask(build_request())


async def test_an_upload_that_is_cut_on_its_way_to_the_engine_is_502_and_not_sent_twice() -> None:
    async with before_engine() as (rig, relay):
        relay.to_server = (cut(b"xxx"),)

        told = await rig.ask(UPLOAD)

        assert (told.status, told.error_code) == (502, b"upstream_closed")
        assert relay.accepted == 1


# Between the client and the proxy.


@pytest.mark.parametrize("toxics", HARMLESS.values(), ids=HARMLESS)
async def test_a_slow_way_to_the_proxy_changes_nothing(toxics: tuple[Toxic, ...]) -> None:
    async with before_proxy() as (rig, relay):
        relay.to_server = relay.to_client = toxics
        client = await rig.client(relay.port)

        first = await client.ask(UPLOAD)
        second = await client.ask(build_request())

        assert first.body == b"POST /x HTTP/1.1|" + b"x" * 1000
        assert second.body == b"GET /x HTTP/1.1|"


@pytest.mark.parametrize("end", ENDS)
async def test_a_request_that_is_cut_in_its_head_reaches_no_engine(end: Callable[[int], Toxic]) -> None:
    async with before_proxy() as (rig, relay):
        relay.to_server = (end(20),)
        client = await rig.client(relay.port)

        await client.send(build_request())

        assert await client.until_closed() == b""
        await eventually(lambda: not rig.connections)
        assert rig.backend.connections == []


@pytest.mark.parametrize("end", ENDS)
async def test_an_upload_that_is_cut_is_told_to_the_engine_by_the_end_of_its_connection(
    end: Callable[[bytes], Toxic],
) -> None:
    async with before_proxy() as (rig, relay):
        relay.to_server = (end(b"xxx"),)
        rig.backend.script = by_hand
        client = await rig.client(relay.port)

        await client.send(UPLOAD)

        backend = await rig.backend.connection()
        received = await backend.until_closed()
        assert received.endswith(b"\r\n\r\nxxx")
        assert await client.until_closed() == b""


@pytest.mark.parametrize("end", ENDS)
async def test_a_client_that_is_cut_off_from_its_response_frees_the_engine(
    end: Callable[[bytes], Toxic],
) -> None:
    async with before_proxy() as (rig, relay):
        relay.to_client = (end(b"hello"),)
        rig.backend.script = by_hand
        client = await rig.client(relay.port)
        await client.send(build_request())
        backend = await rig.backend.connection()
        await backend.until(b"\r\n\r\n")

        await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello, and so on")

        assert (await client.until_closed()).endswith(b"\r\n\r\nhello")
        assert await backend.until_closed() == b""


async def test_a_client_that_falls_silent_in_its_head_is_told_408() -> None:
    async with before_proxy(Limits(head_timeout=SOON, shutdown_timeout=0.5)) as (rig, relay):
        relay.to_server = (half_open(20),)
        client = await rig.client(relay.port)

        told = await client.ask(build_request())

        assert told.status == 408


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_a_client_that_falls_silent_in_its_upload_is_told_408_and_frees_the_engine() -> None:
    async with before_proxy(Limits(body_timeout=SOON, shutdown_timeout=0.5)) as (rig, relay):
        relay.to_server = (half_open(b"xxx"),)
        rig.backend.script = by_hand
        client = await rig.client(relay.port)

        told = await client.ask(UPLOAD)

        assert told.status == 408
        assert (await (await rig.backend.connection()).until_closed()).endswith(b"xxx")


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_a_client_that_takes_nothing_any_more_is_cut_off_and_frees_the_engine() -> None:
    async with before_proxy(Limits(write_timeout=SOON, shutdown_timeout=0.5)) as (rig, relay):
        relay.to_client = (half_open(b"\r\n\r\n"),)
        rig.backend.script = by_hand
        client = await rig.client(relay.port)
        await client.send(build_request())
        backend = await rig.backend.connection()
        await backend.until(b"\r\n\r\n")

        with pytest.raises(ConnectionError):
            await backend.send(ok(b"x" * 50_000_000))


async def test_the_next_request_goes_on_once_the_network_is_well_again() -> None:
    async with before_engine() as (rig, relay):
        relay.to_client = (reset(5),)
        client = await rig.client()
        broken = await client.ask(build_request())
        relay.to_client = ()
        rig.backend.script = echo

        well = await client.ask(build_request())

        assert (broken.status, well.status) == (502, 200)
