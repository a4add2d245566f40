"""Whatever a client sends, and however it is cut: the same answers, or a well-formed refusal, or a close."""

import asyncio
import contextlib
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.conftest import examples, impatiently
from tests.rigs.raw_backend import echo
from tests.rigs.raw_http import Message, RawClient, build_request, read_response
from tests.rigs.wire_rig import WireRig

from ai_proxy.platform.tasks import spawn

JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
ID = b"X-Request-ID: fixed"

REQUESTS = (
    build_request(b"/service/svc/a?b=c", ID),
    build_request(b"/service/svc/json", ID, JSON, body=b'{"model": "x"}'),
    build_request(b"/service/svc/json", ID, JSON, CHUNKED, method=b"POST")
    + b"5;e=1\r\n{\r\n\r\n\r\n1\r\n}\r\n0\r\nT: 1\r\n\r\n",
    build_request(b"/service/svc/upload", ID, body=b"GET / HTTP/1.1\r\n\r\n" * 20),
    build_request(b"/service/svc/upload", ID, CHUNKED, method=b"PUT")
    + b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n",
    build_request(b"/service/none/x", ID, body=b"rejected"),
    build_request(b"/api/v1/services", ID, b"Connection: keep-alive, X-A", b"X-A: 1"),
    build_request(b"/service/svc/h2c", ID, b"Connection: upgrade", b"Upgrade: h2c", body=b"hello"),
    b"\r\n" + build_request(b"*", ID, method=b"OPTIONS"),
)
TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"\xff",
    b"0",
    b"-1",
    b"ffffffff",
    b"HTTP/1.0",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Host: x\r\n",
    b"CONNECT ",
    b"\r\n\r\n",
    b"x" * 3000,
)

slow = settings(
    max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
indices = st.lists(st.integers(0, 10_000), max_size=12)
mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "cut"]),
        st.integers(0, 10_000),
        st.sampled_from(TOKENS),
    ),
    min_size=1,
    max_size=4,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data at these points, taken modulo its length."""
    points = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(points)]


def mutate(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Change data in a few places."""
    for kind, position, token in changes:
        at = position % (len(data) + 1)
        match kind:
            case "insert":
                data = data[:at] + token + data[at:]
            case "replace":
                data = data[:at] + token + data[at + len(token) :]
            case "delete":
                data = data[:at] + data[at + len(token) :]
            case _:
                data = data[:at]
    return data


async def send_in_pieces(rig: WireRig, parts: list[bytes], count: int) -> list[tuple[bytes, bytes]]:
    client = await rig.client()
    answers = []
    sending = spawn(_send(client, parts), "send")
    for _ in range(count):
        answer = await client.response()
        answers.append((answer.first_line, answer.body))
    await sending
    await client.close()
    return answers


async def _send(client: RawClient, parts: list[bytes]) -> None:
    for part in parts:
        await client.send(part)
        await asyncio.sleep(0)


@slow
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), indices)
def test_cuts_between_reads_change_nothing(
    fuzzed: tuple[asyncio.Runner, WireRig], chosen: list[bytes], cuts: list[int]
) -> None:
    runner, rig = fuzzed
    data = b"".join(chosen)

    whole = runner.run(send_in_pieces(rig, [data], len(chosen)))
    cut = runner.run(send_in_pieces(rig, pieces(data, cuts), len(chosen)))

    assert cut == whole


async def send_and_listen(rig: WireRig, data: bytes) -> bytes:
    """Send, and return all that comes until the proxy closes the connection."""
    client = await rig.client()
    with contextlib.suppress(ConnectionError):  # refused before its end
        await client.send(data)
    received = await client.until_closed()
    await client.close()
    return received


async def parse(received: bytes) -> list[Message]:
    """Read a sequence of responses; anything that is none raises."""
    reader = asyncio.StreamReader(limit=2**20)
    reader.feed_data(received)
    reader.feed_eof()
    responses = []
    while not reader.at_eof():
        responses.append(await read_response(reader))
    return responses


@impatiently
@slow
@given(st.lists(st.tuples(st.sampled_from(REQUESTS), mutations), min_size=20, max_size=40))
def test_a_mutated_request_ends_in_well_formed_answers_or_a_close(
    fuzzed: tuple[asyncio.Runner, WireRig], cases: list[tuple[bytes, list[tuple[str, int, bytes]]]]
) -> None:
    runner, rig = fuzzed
    rig.backend.script = echo

    async def run() -> None:
        requests = [mutate(request, changes) for request, changes in cases]
        everything = await asyncio.gather(*(send_and_listen(rig, request) for request in requests))
        for received in everything:
            for response in await parse(received):
                assert response.status in (100, 200, 400, 404, 408, 413, 431, 502, 504), response
                assert response.status in (100, 200) or response.error_code is not None
        client = await rig.client()
        assert (await client.ask(build_request())).status == 200
        await client.close()

    runner.run(run())
    assert rig.admission.in_flight == {"svc": 0}
    assert rig.problems == []
