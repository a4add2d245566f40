"""A whole answer of an engine, as a message of Anthropic's API."""

from ai_proxy.dialects.anthropic.request import Request
from ai_proxy.dialects.completion import Facts, Said
from ai_proxy.dialects.tools import Call, usable, whole_calls

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_id(facts: Facts) -> str:
    """Return the name of an answer, in Anthropic's form.

    >>> message_id(Facts(id="chatcmpl-4711"))
    'msg_4711'
    """
    return f"msg_{facts.id.removeprefix('chatcmpl-')}"


def call_id(call: Call, number: int, facts: Facts) -> str:
    """Return the name of a tool call, also where the engine gives none."""
    return call.id or f"toolu_{facts.id.removeprefix('chatcmpl-')}_{number}"


def stop(facts: Facts, stop_sequences: list[str] | None, *, called: bool) -> dict[str, str | None]:
    """Return why an answer ended; of a sequence that stopped it, only vLLM tells.

    >>> stop(Facts(finish_reason="length"), None, called=False)
    {'stop_reason': 'max_tokens', 'stop_sequence': None}
    >>> stop(Facts(finish_reason="stop", stop_reason="END"), ["END"], called=False)
    {'stop_reason': 'stop_sequence', 'stop_sequence': 'END'}
    """
    sequence = facts.stop_reason
    if isinstance(sequence, str) and sequence in (stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    reason = STOP_REASONS.get(facts.finish_reason or "stop", "end_turn")
    # Not every engine says tool_calls when it makes some.
    return {"stop_reason": "tool_use" if called and reason == "end_turn" else reason, "stop_sequence": None}


def usage(facts: Facts) -> dict[str, int]:
    """Return the tokens of an answer; those of the prompt that were in the engine's cache count apart."""
    return {
        "input_tokens": max(0, facts.prompt_tokens - facts.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": facts.cached_tokens,
        "output_tokens": facts.completion_tokens,
    }


def message(request: Request, facts: Facts) -> dict[str, object]:
    """Return a message that says nothing yet."""
    return {
        "id": message_id(facts),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage(facts), "output_tokens": 0},
    }


def whole(said: Said, facts: Facts, request: Request) -> dict[str, object]:
    """Return a whole message.

    Raises:
        UpstreamInvalidError: The model called a tool in a way that nobody can understand.
    """
    content: list[dict[str, object]] = []
    if said.thinking and request.shows_thinking:
        content.append({"type": "thinking", "thinking": said.thinking, "signature": ""})
    if said.text:
        content.append({"type": "text", "text": said.text})
    calls = usable(whole_calls(said.tool_calls), facts.finish_reason)
    for number, (call, arguments) in enumerate(calls):
        name = call_id(call, number, facts)
        content.append({"type": "tool_use", "id": name, "name": call.name, "input": arguments})
    return {
        **message(request, facts),
        "content": content,
        **stop(facts, request.stop_sequences, called=bool(calls)),
        "usage": usage(facts),
    }
