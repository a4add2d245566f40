"""Tells how many tokens a request took, without parsing its response."""

import re
from collections import deque

from ai_proxy.core.usage import UNKNOWN

KEPT = 4
"""Last pieces of a response that are kept: an engine's usage comes at the end, in a piece of its own."""
SEARCHED = 16 * 1024
"""Bytes searched at either end."""

_IN = re.compile(rb'"(?:prompt_tokens|input_tokens|prompt_eval_count)"\s*:\s*(\d{1,9})')
_OUT = re.compile(rb'"(?:completion_tokens|output_tokens|eval_count)"\s*:\s*(\d{1,9})')
_IN_CACHED = re.compile(rb'"cache_read_input_tokens"\s*:\s*(\d{1,9})')
_PROMPT_TIMED = re.compile(rb'"prompt_n"\s*:\s*(\d{1,9})')
_CACHE_TIMED = re.compile(rb'"cache_n"\s*:\s*(\d{1,9})')
_TIMED = re.compile(rb'"predicted_n"\s*:\s*(\d{1,9})')


class Usage:
    """Sees a response pass by.

    Within a generated text these names stand with a backslash before their quotes, so they are not mistaken.
    """

    __slots__ = ("events", "first", "recent")

    def __init__(self) -> None:
        self.first = b""
        self.recent: deque[bytes] = deque(maxlen=KEPT)
        self.events = 0

    def count(self) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer; UNKNOWN for what cannot be told.

        An engine that tells nothing has its stream's events counted, the last of which only ends it.
        """
        end = b"".join(self.recent)[-SEARCHED:]
        begin = self.first[:SEARCHED]
        prompt = _last(_IN, end, begin)
        if prompt != UNKNOWN:
            prompt += max(0, _last(_IN_CACHED, end, begin))
        elif (timed := _last(_PROMPT_TIMED, end, begin)) != UNKNOWN:
            prompt = timed + max(0, _last(_CACHE_TIMED, end, begin))
        answer = _last(_OUT, end, begin)
        if answer == UNKNOWN:
            answer = _last(_TIMED, end, begin)
        if answer == UNKNOWN and self.events > 1:
            answer = self.events - 1
        return prompt, answer


def _last(pattern: re.Pattern[bytes], end: bytes, begin: bytes) -> int:
    """Return the last number found, looking at the end first."""
    found = pattern.findall(end) or pattern.findall(begin)
    return int(found[-1]) if found else UNKNOWN
