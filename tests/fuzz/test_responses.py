"""Whatever a backend sends, and however it is cut: clients see a whole response only where there was one."""

import asyncio
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.conftest import examples, impatiently
from tests.rigs.raw_backend import BackendConnection, Script, answer_and_close, ok
from tests.rigs.raw_http import Message, TruncatedError, build_request
from tests.rigs.wire_rig import WireRig

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES = (
    ok(b"hello world" * 10, b"Content-Type: text/plain"),
    ok(b""),
    CHUNKED + b"5\r\nhello\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + ok(b"late"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
)
TOKENS = (
    b"\r\n",
    b"\n",
    b" ",
    b":",
    b"\x00",
    b"\xff",
    b"0",
    b"9",
    b"-1",
    b"HTTP/1.1 ",
    b"101",
    b"100 Continue\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"x" * 3000,
)

slow = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete"]), st.integers(0, 5000), st.sampled_from(TOKENS)
    ),
    min_size=1,
    max_size=3,
)


def mutate(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Change data in a few places."""
    for kind, position, token in changes:
        at = position % (len(data) + 1)
        after = at + (0 if kind == "insert" else len(token))
        data = data[:at] + (b"" if kind == "delete" else token) + data[after:]
    return data


def in_pieces(response: bytes, cuts: list[int]) -> Script:
    points = sorted({cut % len(response) for cut in cuts} | {0, len(response)})

    async def script(connection: BackendConnection) -> None:
        while await connection.request():
            for start, end in pairwise(points):
                await connection.send(response[start:end])
                await asyncio.sleep(0)

    return script


async def ask(rig: WireRig) -> Message | None:
    """Return the response if it came whole."""
    client = await rig.client()
    try:
        return await client.ask(build_request())
    except (TruncatedError, EOFError, ConnectionError):
        return None
    finally:
        await client.close()


@slow
@given(st.sampled_from(RESPONSES), st.lists(st.integers(0, 5000), max_size=10))
def test_cuts_between_reads_change_nothing(
    fuzzed: tuple[asyncio.Runner, WireRig], response: bytes, cuts: list[int]
) -> None:
    runner, rig = fuzzed

    async def run() -> list[Message]:
        seen = []
        for script in (in_pieces(response, []), in_pieces(response, cuts)):
            rig.backend.script = script
            rig.gateway.shared.pools.of(rig.admission.upstreams["svc"]).sweep(0)
            answered = await ask(rig)
            assert answered is not None
            seen.append(answered)
        return seen

    whole, cut = runner.run(run())
    assert (whole.first_line, whole.body) == (cut.first_line, cut.body)


@slow
@given(st.sampled_from(RESPONSES), st.integers(0, 5000), st.booleans())
def test_a_response_that_was_cut_short_is_never_whole(
    fuzzed: tuple[asyncio.Runner, WireRig],
    response: bytes,
    at: int,
    reset: bool,
) -> None:
    runner, rig = fuzzed
    rig.backend.script = answer_and_close(response[: at % len(response)], reset=reset)

    seen = runner.run(ask(rig))

    assert seen is None or seen.error_code in (b"upstream_closed", b"upstream_invalid_response")


@impatiently
@slow
@given(st.lists(st.tuples(st.sampled_from(RESPONSES), mutations), min_size=20, max_size=30))
def test_a_mutated_response_is_passed_on_refused_or_truncated(
    fuzzed: tuple[asyncio.Runner, WireRig], cases: list[tuple[bytes, list[tuple[str, int, bytes]]]]
) -> None:
    runner, rig = fuzzed
    responses = iter([mutate(response, changes) for response, changes in cases])

    async def script(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(next(responses))
        await connection.until_closed()

    async def run() -> None:
        rig.backend.script = script
        rig.gateway.shared.pools.of(rig.admission.upstreams["svc"]).sweep(0)
        for seen in await asyncio.gather(*(ask(rig) for _ in cases)):
            assert seen is None or seen.error_code or 200 <= seen.status <= 999, seen
            assert seen is None or len(seen.all(b"x-request-id")) == 1

    runner.run(run())
    assert rig.admission.in_flight == {"svc": 0}
    assert rig.problems == []
