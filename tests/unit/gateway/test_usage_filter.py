import pytest
from hypothesis import given, settings
from tests.unit.dialects.streams import DONE, STOP, chunk, cuts, data, translated, usage

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.gateway.inference.usage_filter import UsageFilter

WANTED = (
    chunk({"content": 'the "usage" of words'})
    + chunk({"content": "."}, **STOP)
    + data({"choices": [], "usage": None})
    + data({"choices": [{"index": 0}], "usage": {"prompt_tokens": 7}})
    + b": a comment\n\n"
)


def removal() -> UsageFilter:
    return UsageFilter("/v1/chat/completions", "req-1")


@settings(deadline=None)
@given(cuts(WANTED + usage(7, 3) + DONE))
def test_only_the_event_that_reports_nothing_but_usage_is_taken_out(at: list[int]) -> None:
    assert translated(removal(), WANTED + usage(7, 3) + DONE, at) == WANTED + DONE


def test_line_ends_of_both_kinds_are_understood() -> None:
    stream, wanted = ((events + DONE).replace(b"\n", b"\r\n") for events in (WANTED + usage(7, 3), WANTED))

    assert translated(removal(), stream) == wanted


def test_what_comes_behind_the_last_event_is_passed_on() -> None:
    assert translated(removal(), WANTED + b"data: cut off") == WANTED + b"data: cut off"


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_an_event_without_end_is_an_error() -> None:
    with pytest.raises(UpstreamInvalidError):
        removal().feed(b"x" * (MAX_COLLECTED + 1))
