"""What a whole answer says of the tokens it took.

Not compiled with the rest (hatch_build.py): mypyc leaves out what is said of a type beside the type.
"""

from typing import Annotated

import msgspec

from ai_proxy.core.usage import UNKNOWN

type Count = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
"""Tokens, as far as an engine is believed: with numbers without end, nothing can be reckoned."""


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


read_answer = msgspec.json.Decoder(Answer).decode
"""Reads the end of a whole answer, from its usage on; raises MsgspecError at anything else."""
