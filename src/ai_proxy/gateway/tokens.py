"""Tells how many tokens a request took, without parsing its response."""

import re
from collections import deque

import msgspec

from ai_proxy.core.usage import UNKNOWN
from ai_proxy.gateway.answer import read_answer

KEPT = 4
"""Last pieces of a stream that are kept: an engine's usage comes at the end, in a piece of its own."""
SEARCHED = 16 * 1024
"""Bytes searched at either end of a response."""
LONGEST = 1024
"""Bytes in which a usage ends."""

_BEGINNINGS = (b'"usage"', b'"timings"', b'"prompt_eval_count"', b'"eval_count"')
"""How what an engine tells of tokens begins: OpenAI's form and Anthropic's, llama.cpp's, Ollama's."""
_IN = re.compile(rb'"(?:prompt_tokens|input_tokens|prompt_eval_count|prompt_n)"\s*:\s*(\d{1,9})')
_CACHED = re.compile(rb'"(?:cache_read_input_tokens|cache_n)"\s*:\s*(\d{1,9})')
_OUT = re.compile(rb'"(?:completion_tokens|output_tokens|eval_count|predicted_n)"\s*:\s*(\d{1,9})')


def count_tokens(first: bytes, last: deque[bytes] | None, events: int) -> tuple[int, int]:
    """Return the tokens of the prompt and of the answer; UNKNOWN for what cannot be told.

    Within a generated text the names looked for stand with a backslash before their quotes, so they are not
    mistaken. An engine that tells nothing has its stream's events counted, the last of which only ends it.

    Args:
        first: The first piece of the response.
        last: The last pieces, when there are several.
        events: Events in the stream.
    """
    if last is None and (start := first.rfind(b'"usage"')) >= 0:
        try:
            usage = read_answer(b"{" + first[start:]).usage  # the brace makes an object of it again
        except msgspec.MsgspecError:
            pass  # there is more to it, or it is no whole answer
        else:
            if usage.prompt_tokens != UNKNOWN:
                return usage.prompt_tokens, usage.completion_tokens
            if usage.input_tokens != UNKNOWN:
                return usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens
    return _search(first, last, events)


def _search(first: bytes, last: deque[bytes] | None, events: int) -> tuple[int, int]:
    """Return the same for an answer in pieces, or in another form."""
    prompt, answer = _told(b"".join(last)[-SEARCHED:] if last else first[-SEARCHED:])
    if prompt == UNKNOWN or answer == UNKNOWN:
        begun = _told(first[:SEARCHED])
        prompt = begun[0] if prompt == UNKNOWN else prompt
        answer = begun[1] if answer == UNKNOWN else answer
    if answer == UNKNOWN and events > 1:
        answer = events - 1
    return prompt, answer


def known(tokens: tuple[int, int]) -> int:
    """Return the tokens of prompt and answer together, as far as they are known.

    >>> known((9, 12)), known((UNKNOWN, 12))
    (21, 12)
    """
    prompt, answer = tokens
    return (prompt if prompt > 0 else 0) + (answer if answer > 0 else 0)  # noqa: FURB136 - max() costs more


def _told(text: bytes) -> tuple[int, int]:
    """Return what the last usage in a piece of a response says."""
    for beginning in _BEGINNINGS:
        start = text.rfind(beginning)
        if start >= 0:
            part = text[start : start + LONGEST]
            prompt, answer = _IN.search(part), _OUT.search(part)
            if prompt is None:
                return UNKNOWN, int(answer[1]) if answer else UNKNOWN
            cached = _CACHED.search(part) if b'"cache_' in part else None
            whole = int(prompt[1]) + (int(cached[1]) if cached else 0)
            return whole, int(answer[1]) if answer else UNKNOWN
    return UNKNOWN, UNKNOWN
