from collections import deque

import pytest

from ai_proxy.core.usage import UNKNOWN
from ai_proxy.gateway.inference.usage import KEPT, count_tokens


def count(*pieces: bytes, streamed: bool = False) -> tuple[int, int]:
    last = deque(pieces, KEPT) if len(pieces) > 1 else None
    return count_tokens(pieces[0], last, sum(piece.count(b"data:") for piece in pieces) * streamed)


ANSWERS = {
    "OpenAI": (b'{"usage":{"completion_tokens":3,"prompt_tokens":7,"total_tokens":10}}', (7, 3)),
    "Responses": (b'{"usage": {"input_tokens": 7, "output_tokens": 3}}', (7, 3)),
    "Ollama": (b'{"done":true,"prompt_eval_count":7,"eval_count":3,"eval_duration":9}', (7, 3)),
    "Anthropic, with a cache": (
        b'{"usage":{"cache_read_input_tokens":5,"input_tokens":2,"output_tokens":3}}',
        (7, 3),
    ),
    "llama.cpp's timings": (
        b'{"timings":{"cache_n":5,"prompt_n":2,"predicted_n":3,"predicted_ms":1}}',
        (7, 3),
    ),
    "a number beyond belief": (
        b'{"usage":{"prompt_tokens":%d,"completion_tokens":3}}' % 10**400,
        (100_000_000, 3),
    ),
    "a number below zero": (b'{"usage":{"prompt_tokens":-7,"completion_tokens":3}}', (UNKNOWN, 3)),
    "something of the request behind it": (
        b'{"usage":{"prompt_tokens":7,"completion_tokens":3},"user":null,"metadata":{"usage":"none"}}',
        (7, 3),
    ),
    "another's form behind it": (
        b'{"usage":{"input_tokens":7,"output_tokens":3},"metadata":{"usage":{"input_tokens":0,"output_tokens":0}}}',
        (7, 3),
    ),
    "another's form before it": (
        b'{"metadata":{"usage":{"prompt_tokens":0}},"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        (7, 3),
    ),
    "nothing": (b"{}", (UNKNOWN, UNKNOWN)),
}


@pytest.mark.threat("a limited key", "more tokens than its limit")
@pytest.mark.parametrize(("body", "tokens"), ANSWERS.values(), ids=ANSWERS)
def test_tokens_are_found_in_every_engines_usage(body: bytes, tokens: tuple[int, int]) -> None:
    assert count(body) == tokens


def test_a_usage_that_comes_in_two_pieces_is_found() -> None:
    assert count(b'{"usage":{"prompt_tok', b'ens":7,"completion_tokens":3}}') == (7, 3)


def test_a_usage_at_the_beginning_of_a_long_answer_is_found() -> None:
    pieces = [b'{"usage":{"prompt_tokens":7}', *[b"0.5," * 1000] * 50]

    assert count(*pieces) == (7, UNKNOWN)


def test_a_text_that_speaks_of_tokens_is_not_taken_for_a_usage() -> None:
    text = rb'{"content":"{\"prompt_tokens\": 99, \"completion_tokens\": 99}"}'

    assert count(text) == (UNKNOWN, UNKNOWN)


def test_the_events_of_a_stream_are_counted_where_nothing_tells() -> None:
    assert count(*[b"data: {}\n\n"] * 6, b"data: [DONE]\n\n", streamed=True) == (UNKNOWN, 6)
