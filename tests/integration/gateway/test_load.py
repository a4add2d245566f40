"""Many at once: nothing is lost, mixed up or leaked."""

import asyncio
import hashlib
import random
import resource
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.rigs.raw_backend import BackendConnection, RawBackend, Script, ok
from tests.rigs.raw_http import RawClient, TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.settings import Limits

STREAMS = 1000
CHUNKS = 8
BURST = 5000
CONNECTIONS = 256


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Four sockets a stream: both ends of both connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 5 * STREAMS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def loaded() -> AsyncIterator[WireRig]:
    async with wire_rig(Limits(shutdown_timeout=5.0), response_timeout=60.0, stream_idle_timeout=60.0) as rig:
        yield rig


def piece(target: bytes, number: int) -> bytes:
    """Return a chunk that cannot be taken for another stream's."""
    return hashlib.sha256(b"%b %d" % (target, number)).hexdigest().encode()


def slow_streams(backend: RawBackend) -> Script:
    """Stream chunks that say whose they are, one every 0.2 s, once all streams are there."""
    complete = asyncio.Event()

    async def script(connection: BackendConnection) -> None:
        if len(backend.connections) == STREAMS:
            complete.set()
        while request := await connection.request():
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await complete.wait()
            for number in range(CHUNKS):
                data = piece(request.target, number)
                await connection.send(b"%x\r\n%b\r\n" % (len(data), data))
                await asyncio.sleep(0.2)
            await connection.send(b"0\r\n\r\n")

    return script


async def test_a_thousand_slow_streams_lose_nothing(loaded: WireRig) -> None:
    loaded.backend.script = slow_streams(loaded.backend)

    async def watch(number: int) -> bool:
        client = await loaded.client()
        target = b"/stream/%d" % number
        response = await client.ask(build_request(b"/service/svc" + target))
        return response.body == b"".join(piece(target, n) for n in range(CHUNKS))

    whole = await asyncio.gather(*(watch(number) for number in range(STREAMS)))

    assert whole.count(True) == STREAMS
    assert len(loaded.backend.connections) == STREAMS


async def test_a_burst_of_requests_loses_nothing(loaded: WireRig) -> None:
    numbers = iter(range(BURST))
    answered: set[bytes] = set()

    async def hammer(client: RawClient) -> None:
        for number in numbers:
            body = b'{"n": %d, "pad": "%b"}' % (number, b"x" * (number % 700))
            response = await client.ask(build_request(b"/service/svc/%d" % number, JSON, body=body))
            assert response.body == b"POST /%d HTTP/1.1|%b" % (number, body)
            answered.add(body)

    clients = [await loaded.client() for _ in range(CONNECTIONS)]
    await asyncio.gather(*(hammer(client) for client in clients))

    assert len(answered) == BURST
    assert len(await loaded.recorder.recorded(BURST)) == BURST
    assert len(loaded.backend.connections) <= CONNECTIONS


JSON = b"Content-Type: application/json"


async def moody(connection: BackendConnection) -> None:
    """Answer in one of many ways, some of them bad."""
    mood = random.Random(connection.number)  # noqa: S311 - the same every time
    while request := await connection.request():
        await asyncio.sleep(mood.choice((0, 0, 0.001, 0.01)))
        match mood.randrange(8):
            case 0:
                return
            case 1:
                connection.reset()
            case 2:
                await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                return
            case 3:
                await connection.send(b"rubbish\r\n\r\n")
            case 4:
                await connection.send(ok(b"surplus") + ok(b"more"))
            case _:
                await connection.send(ok(request.body))


async def capricious_client(rig: WireRig, mood: random.Random) -> None:
    """Send a few requests, and leave in the middle of anything."""
    client = await rig.client()
    requests = [
        build_request(),
        build_request(b"/service/svc/x", JSON, body=b"x" * mood.randrange(100_000)),
        build_request(b"/service/svc/x", b"Transfer-Encoding: chunked", method=b"PUT")
        + b"5\r\nhello\r\n0\r\n\r\n",
        build_request(b"/service/none/"),
        build_request(b"/health"),
        build_request(b"/service/svc/x", b"Connection: upgrade", b"Upgrade: x"),
        b"rubbish",
    ]
    sent = b"".join(mood.choices(requests, k=mood.randrange(1, 5)))
    try:
        await client.send(sent[: mood.randrange(1, len(sent) + 1)] if mood.random() < 0.3 else sent)
        async with asyncio.timeout(mood.choice((0.0, 0.001, 0.01, 0.1))):
            while True:
                await client.response()
    except (TimeoutError, EOFError, TruncatedError, ConnectionError):
        if mood.random() < 0.5:
            client.reset()
        else:
            await client.close()


async def test_clients_and_backends_that_end_at_random_leave_no_lease_behind(loaded: WireRig) -> None:
    loaded.backend.script = moody
    mood = random.Random(1)  # noqa: S311 - the same every time

    for _ in range(12):
        await asyncio.gather(*(capricious_client(loaded, mood) for _ in range(50)))
    await eventually(lambda: not loaded.connections)

    assert loaded.admission.in_flight == {"svc": 0}
    assert len(loaded.admission.outcomes) > 300
    assert len(set(loaded.admission.outcomes)) >= 3
