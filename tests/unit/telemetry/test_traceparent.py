import timeit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy.telemetry.otel.traceparent import Sampling, TraceContext, Traceparents, parse

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

contexts = st.builds(
    TraceContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), sampled=st.booleans()
)


def written(context: TraceContext, version: int = 0, more: bytes = b"") -> bytes:
    return (b"%02x-%032x-%016x-%02x" % (version, context.trace_id, context.span_id, context.sampled)) + more


@given(contexts)
def test_what_is_written_is_read(context: TraceContext) -> None:
    assert parse(written(context)) == context


@given(contexts, st.integers(1, 254), st.sampled_from([b"", b"-", b"-what comes later"]))
def test_later_versions_are_read_as_far_as_they_are_known(
    context: TraceContext, version: int, more: bytes
) -> None:
    assert parse(written(context, version, more)) == context


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        b"00",
        SAMPLED.upper(),
        SAMPLED + b"-more",
        SAMPLED + b"\n",
        b" " + SAMPLED,
        SAMPLED[:-1],
        b"ff" + SAMPLED[2:],
        b"01" + SAMPLED[2:] + b"x",
        b"00-" + b"0" * 32 + SAMPLED[35:],
        SAMPLED[:36] + b"0" * 16 + SAMPLED[52:],
        SAMPLED + b", " + SAMPLED,
    ],
)
def test_what_is_not_a_traceparent_is_not_taken_for_one(traceparent: bytes) -> None:
    assert parse(traceparent) is None


@given(
    st.one_of(st.binary(max_size=200), contexts.map(written)), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()
)
@example(SAMPLED + b"\xff", 1.0, True)
def test_whatever_a_client_sends_a_valid_traceparent_is_passed_on(
    traceparent: bytes, ratio: float, follows_parent: bool
) -> None:
    passed = Traceparents(Sampling(ratio, follows_parent)).begin(traceparent)

    client, ours = parse(traceparent), parse(passed or traceparent)
    assert ours is not None
    if client is not None:
        assert ours.trace_id == client.trace_id
    if passed:
        assert len(passed) == 55
        assert client is None or (ours.sampled and ours.span_id != client.span_id)


def test_sampled_client_gets_a_child_and_an_unsampled_one_is_left_alone() -> None:
    tracing = Traceparents(Sampling(0.0))

    child = parse(tracing.begin(SAMPLED))

    assert child is not None
    assert child.sampled
    assert child.span_id != 0xB7AD6B7169203331
    assert tracing.begin(UNSAMPLED) == b""


def test_without_regard_to_the_client_its_trace_id_decides() -> None:
    assert Traceparents(Sampling(0.0, follows_parent=False)).begin(SAMPLED) == b""
    assert Traceparents(Sampling(1.0, follows_parent=False)).begin(UNSAMPLED)[-2:] == b"01"


def test_decision_not_to_sample_is_passed_on_where_a_trace_begins() -> None:
    passed = parse(Traceparents(Sampling(0.0)).begin(b""))

    assert passed is not None
    assert not passed.sampled


def test_share_of_traces_is_kept() -> None:
    tracing = Traceparents(Sampling(0.25))

    kept = sum(tracing.begin(b"")[-1:] == b"1" for _ in range(4000))

    assert 800 < kept < 1200  # seven standard deviations either way


@pytest.mark.parametrize("traceparent", [b"", UNSAMPLED, b"garbage"])
def test_request_that_is_not_sampled_costs_little(traceparent: bytes) -> None:
    tracing = Traceparents(Sampling(0.0))

    fastest = min(timeit.repeat(lambda: tracing.begin(traceparent), number=1000, repeat=20)) / 1000

    assert fastest < 5e-6  # 1 us where it was written
