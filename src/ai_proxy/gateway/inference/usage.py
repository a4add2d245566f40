"""The tokens that a request took, read from its response without parsing the chunks."""

import re
from collections import deque
from typing import Annotated, Protocol

import msgspec

from ai_proxy.core.usage import UNKNOWN

KEPT = 4
"""Last pieces of a stream that are kept: an engine's usage comes at the end, in a piece of its own."""
SEARCHED = 16 * 1024
"""Bytes searched at either end of a response."""
LONGEST = 1024
"""Bytes within which a usage object ends."""
BYTES_PER_TOKEN = 8
"""More than a token of text has on average: what an engine does not report costs a token for as many."""
GENERATING = (b"/completions", b"/responses", b"/messages", b"/api/chat", b"/api/generate")
"""How paths end on which a model turns text into text."""
EVENT = b"data:"
"""How an event of a stream begins."""

_BEGINNINGS = (b'"usage"', b'"timings"', b'"prompt_eval_count"', b'"eval_count"')
"""How an engine's report of tokens begins: OpenAI's form and Anthropic's, llama.cpp's, Ollama's."""
_SAYS = rb"\s*:\s*[{\d]"
"""What stands behind such a name where it reports anything."""
_IN = re.compile(rb'"(?:prompt_tokens|input_tokens|prompt_eval_count|prompt_n)"\s*:\s*(\d{1,9})')
_CACHED = re.compile(rb'"(?:cache_read_input_tokens|cache_n)"\s*:\s*(\d{1,9})')
_OUT = re.compile(rb'"(?:completion_tokens|output_tokens|eval_count|predicted_n)"\s*:\s*(\d{1,9})')

type Count = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
"""Tokens; a bound, since an engine may report numbers without end."""


class Usage(msgspec.Struct, gc=False):
    """Tokens, by the names of OpenAI's API and of Anthropic's."""

    prompt_tokens: Count = UNKNOWN
    completion_tokens: Count = UNKNOWN
    input_tokens: Count = UNKNOWN
    output_tokens: Count = UNKNOWN
    cache_read_input_tokens: Count = 0


class Answer(msgspec.Struct, gc=False):
    """An answer, as far as it is read."""

    usage: Usage


_read_answer = msgspec.json.Decoder(Answer).decode


class UsageMeter(Protocol):
    """Keeps the two ends of a response as it passes, and reads the tokens from them once it is over."""

    def see(self, data: bytes) -> None:
        """Take note of a piece of the response's body, which is not empty."""

    @property
    def latest(self) -> bytes:
        """The last piece; empty before the first."""

    def tokens(self) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer; UNKNOWN for what the engine does not report."""


class AnswerMeter(msgspec.Struct, gc=False, eq=False):
    """The meter of an answer that comes whole, most often in one piece: quickly made, slowly changed."""

    _first: bytes = b""
    _last: deque[bytes] | None = None  # the last pieces, when there are several

    def see(self, data: bytes) -> None:
        """See `UsageMeter`."""
        if self._last is not None:
            self._last.append(data)
        elif self._first:
            self._last = deque((self._first, data), KEPT)
        else:
            self._first = data

    @property
    def latest(self) -> bytes:
        """See `UsageMeter`."""
        return self._last[-1] if self._last is not None else self._first

    def tokens(self) -> tuple[int, int]:
        """See `UsageMeter`."""
        return count_tokens(self._first, self._last, 0)


class StreamMeter:
    """The meter of a stream; it counts the events as well, for engines that report no tokens."""

    __slots__ = ("_events", "_first", "_last")

    def __init__(self) -> None:
        self._events = 0
        self._first = b""
        self._last: deque[bytes] = deque(maxlen=KEPT)

    def see(self, data: bytes) -> None:
        """See `UsageMeter`."""
        self._events += data.count(EVENT)
        self._first = self._first or data
        self._last.append(data)

    @property
    def latest(self) -> bytes:
        """See `UsageMeter`."""
        return self._last[-1] if self._last else b""

    def tokens(self) -> tuple[int, int]:
        """See `UsageMeter`."""
        return count_tokens(self._first, self._last, self._events)


def count_tokens(first: bytes, last: deque[bytes] | None, events: int) -> tuple[int, int]:
    """Return the tokens of the prompt and of the answer; UNKNOWN for what the engine does not report.

    Within a generated text the names looked for stand with a backslash before their quotes, so they are not
    mistaken. Without a report the stream's events are counted, the last of which only ends it.

    Args:
        first: The first piece of the response.
        last: The last pieces, when there are several.
        events: Events in the stream.
    """
    if last is None and (start := first.rfind(b'"usage"')) >= 0:
        try:
            usage = _read_answer(b"{" + first[start:]).usage  # the brace makes an object of it again
        except msgspec.MsgspecError:
            pass  # there is more to it, or it is no whole answer
        else:
            if usage.prompt_tokens != UNKNOWN:
                return usage.prompt_tokens, usage.completion_tokens
            if usage.input_tokens != UNKNOWN:
                return usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens
    prompt, answer = _reported(b"".join(last)[-SEARCHED:] if last else first[-SEARCHED:])
    if prompt == UNKNOWN or answer == UNKNOWN:
        begun = _reported(first[:SEARCHED])
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


def charged(tokens: tuple[int, int], path: bytes, received: int, sent: int) -> int:
    """Return the tokens to charge for a request that was answered: at least what can be seen of them.

    Args:
        tokens: Of the prompt and of the answer, as reported.
        path: That was asked.
        received: Bytes of the request's body.
        sent: Bytes of the response's body.

    >>> charged((9, 12), b"/v1/completions", 800, 80), charged((UNKNOWN, 12), b"/v1/completions", 800, 80)
    (21, 112)
    >>> charged((UNKNOWN, UNKNOWN), b"/v1/audio/speech", 800, 80)
    0
    """
    if UNKNOWN not in tokens or not path.partition(b"?")[0].endswith(GENERATING):
        return known(tokens)
    prompt, answer = tokens
    return known(
        (
            received // BYTES_PER_TOKEN if prompt == UNKNOWN else prompt,
            sent // BYTES_PER_TOKEN if answer == UNKNOWN else answer,
        )
    )


def _reported(text: bytes) -> tuple[int, int]:
    """Return the most that any report in a piece of a response says.

    An engine may repeat something of the request behind its own report, and a stream reports the sum so far.
    """
    for beginning in _BEGINNINGS:
        last = text.rfind(beginning)
        if last < 0:
            continue
        if text.find(beginning, 0, last) < 0:
            return _read_report(text, last)
        if found := [_read_report(text, at.start()) for at in re.finditer(beginning + _SAYS, text)]:
            prompts, answers = zip(*found, strict=True)
            return max(prompts), max(answers)
    return UNKNOWN, UNKNOWN


def _read_report(text: bytes, start: int) -> tuple[int, int]:
    part = text[start : start + LONGEST]
    prompt, answer = _IN.search(part), _OUT.search(part)
    if prompt is None:
        return UNKNOWN, int(answer[1]) if answer else UNKNOWN
    cached = _CACHED.search(part) if b'"cache_' in part else None
    whole = int(prompt[1]) + (int(cached[1]) if cached else 0)
    return whole, int(answer[1]) if answer else UNKNOWN
