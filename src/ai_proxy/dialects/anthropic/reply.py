"""Messages of Anthropic's API, made from a chat completion."""

from ai_proxy.dialects.anthropic.request import Request
from ai_proxy.dialects.completion import Delta, Facts
from ai_proxy.dialects.tools import Call, usable, whole_calls

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_id(facts: Facts) -> str:
    """Return the id of a completion in Anthropic's form.

    >>> message_id(Facts(id="chatcmpl-4711"))
    'msg_4711'
    """
    return f"msg_{facts.id.removeprefix('chatcmpl-')}"


def call_id(call: Call, number: int, facts: Facts) -> str:
    """Return the id of a tool call; make one where the engine gives none."""
    return call.id or f"toolu_{facts.id.removeprefix('chatcmpl-')}_{number}"


def stop(facts: Facts, stop_sequences: list[str] | None, *, called: bool) -> dict[str, str | None]:
    """Return why a message ended; only vLLM reports which stop sequence ended it.

    >>> stop(Facts(finish_reason="length"), None, called=False)
    {'stop_reason': 'max_tokens', 'stop_sequence': None}
    >>> stop(Facts(finish_reason="stop", stop_reason="END"), ["END"], called=False)
    {'stop_reason': 'stop_sequence', 'stop_sequence': 'END'}
    """
    sequence = facts.stop_reason
    if isinstance(sequence, str) and sequence in (stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    reason = STOP_REASONS.get(facts.finish_reason or "stop", "end_turn")
    # Some engines report "stop" although they made tool calls.
    return {"stop_reason": "tool_use" if called and reason == "end_turn" else reason, "stop_sequence": None}


def usage(facts: Facts) -> dict[str, int]:
    """Return the tokens of a message; cached tokens of the prompt count separately."""
    return {
        "input_tokens": max(0, facts.prompt_tokens - facts.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": facts.cached_tokens,
        "output_tokens": facts.completion_tokens,
    }


def empty_message(request: Request, facts: Facts) -> dict[str, object]:
    """Return a message without content, as message_start carries it."""
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


def whole(output: Delta, facts: Facts, request: Request) -> dict[str, object]:
    """Return a complete message.

    Raises:
        UpstreamInvalidError: A tool call has no name, or arguments that are not a JSON object.
    """
    content: list[dict[str, object]] = []
    if output.thinking and request.shows_thinking:
        content.append({"type": "thinking", "thinking": output.thinking, "signature": ""})
    if output.text:
        content.append({"type": "text", "text": output.text})
    calls = usable(whole_calls(output.tool_calls), facts.finish_reason)
    for number, (call, arguments) in enumerate(calls):
        name = call_id(call, number, facts)
        content.append({"type": "tool_use", "id": name, "name": call.name, "input": arguments})
    return {
        **empty_message(request, facts),
        "content": content,
        **stop(facts, request.stop_sequences, called=bool(calls)),
        "usage": usage(facts),
    }
