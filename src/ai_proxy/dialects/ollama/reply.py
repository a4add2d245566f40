"""Responses of Ollama's native API: lines of JSON for a stream, one object otherwise."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import JsonObject, encode, without_none
from ai_proxy.dialects.completion import Delta, Facts
from ai_proxy.dialects.errors import engine_message, message
from ai_proxy.dialects.tools import Call, Calls, usable, whole_calls

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
LONGEST_NS = 1e18
"""Longest duration that an engine is believed, in nanoseconds."""

DONE_REASONS = {"length": "length"}
"""Ollama's names of finish reasons; every other reason is `stop`."""


def error_body(error: ProxyError) -> bytes:
    r"""Return the body of an error response; in a stream, an error is a line with the same content.

    >>> error_body(ProxyError("model 'tiny' not found"))
    b'{"error":"model \'tiny\' not found"}'
    """
    return encode({"error": message(error)})


def timestamp(wall: float) -> str:
    """Return a time, given in seconds since the epoch, in Ollama's format.

    >>> timestamp(1795212819.717279)
    '2026-11-20T22:13:39.717279Z'
    """
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


type Render = Callable[[str, str, Sequence[tuple[Call, JsonObject]]], dict[str, object]]
"""Returns the members of a response that hold text, thinking, and tool calls with their arguments."""


def as_message(
    text: str = "", thinking: str = "", calls: Sequence[tuple[Call, JsonObject]] = ()
) -> dict[str, object]:
    """Render model output as /api/chat does.

    >>> as_message(" the")
    {'message': {'role': 'assistant', 'content': ' the'}}
    """
    content: dict[str, object] = {"role": "assistant", "content": text}
    if thinking:
        content["thinking"] = thinking
    if calls:
        content["tool_calls"] = [
            without_none({"id": call.id or None, "function": {"name": call.name, "arguments": arguments}})
            for call, arguments in calls
        ]
    return {"message": content}


def as_response(
    text: str = "",
    thinking: str = "",
    calls: Sequence[tuple[Call, JsonObject]] = (),  # noqa: ARG001 - as in `Render`
) -> dict[str, object]:
    """Render model output as /api/generate does, which has no tools.

    >>> as_response(thinking="Hm.")
    {'response': '', 'thinking': 'Hm.'}
    """
    members: dict[str, object] = {"response": text}
    return members | {"thinking": thinking} if thinking else members


class Stopwatch:
    """Measures one response, from the request on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.now()
        self._first: float | None = None

    def timestamp(self) -> str:
        """Return the current time."""
        return timestamp(self._clock.wall())

    def token(self) -> None:
        """Record the arrival of a delta; the first one marks the end of the prompt's evaluation."""
        if self._first is None:
            self._first = self._clock.now()

    def elapsed(self) -> int:
        """Return the time since the request, in nanoseconds."""
        return int((self._clock.now() - self._started) * NS_PER_S)

    def statistics(self, facts: Facts) -> dict[str, object]:
        """Return tokens, and durations in nanoseconds, of a complete response.

        Where the engine reports its durations, the remaining time is the load duration: queue and load.
        Elsewhere the first delta separates the evaluation of the prompt from that of the answer.
        """
        total = self.elapsed()
        if facts.timings is not None:
            prompt = int(min(facts.timings.prompt_ms * NS_PER_MS, LONGEST_NS))
            answer = int(min(facts.timings.predicted_ms * NS_PER_MS, LONGEST_NS))
            load = max(0, total - prompt - answer)
        else:
            prompt = int(((self._first or self._started) - self._started) * NS_PER_S)
            answer, load = total - prompt, 0
        return {
            "total_duration": total,
            "load_duration": load,
            "prompt_eval_count": facts.prompt_tokens,
            "prompt_eval_duration": prompt,
            "eval_count": facts.completion_tokens,
            "eval_duration": max(1, answer),  # clients divide by it
        }


class LineWriter:
    """Writes model output as lines of JSON; implements `ReplyWriter`."""

    media_type = b"application/x-ndjson"

    def __init__(self, model: str, render: Render, clock: Clock, *, shows_thinking: bool) -> None:
        self._model = model
        self._shows_thinking = shows_thinking
        self._render = render
        self._watch = Stopwatch(clock)
        self._calls = Calls()

    def whole(self, message: Delta, facts: Facts) -> bytes:
        """Return the complete response."""
        calls = usable(whole_calls(message.tool_calls), facts.finish_reason)
        return self._last(message.text, self._visible(message), calls, facts)

    def delta(self, delta: Delta, facts: Facts) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return the line for a delta; tool calls are written complete, at the end."""
        for call in delta.tool_calls or ():
            self._calls.add(call)
        if delta.text or delta.thinking or delta.tool_calls:
            self._watch.token()
        thinking = self._visible(delta)
        return self._line(delta.text, thinking) if delta.text or thinking else b""

    def end(self, facts: Facts) -> bytes:
        """Return the last lines: the tool calls, then the statistics."""
        calls = usable(self._calls.all, facts.finish_reason)
        called = self._line("", "", calls) if calls else b""
        return called + self._last("", "", (), facts) + b"\n"

    def refusal(self, status: int, message: str) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return the body of an error response of the engine."""
        return encode({"error": message})

    def failure(self, error: ProxyError) -> bytes:
        """Return the line that reports an error."""
        return error_body(error) + b"\n"

    def _visible(self, delta: Delta) -> str:
        return delta.thinking if self._shows_thinking else ""

    def _line(self, text: str, thinking: str, calls: Sequence[tuple[Call, JsonObject]] = ()) -> bytes:
        return encode(self._members(text, thinking, calls) | {"done": False}) + b"\n"

    def _last(
        self, text: str, thinking: str, calls: Sequence[tuple[Call, JsonObject]], facts: Facts
    ) -> bytes:
        reason = DONE_REASONS.get(facts.finish_reason or "", "stop")
        ending = {"done": True, "done_reason": reason, **self._watch.statistics(facts)}
        return encode(self._members(text, thinking, calls) | ending)

    def _members(
        self, text: str, thinking: str, calls: Sequence[tuple[Call, JsonObject]]
    ) -> dict[str, object]:
        members = self._render(text, thinking, calls)
        return {"model": self._model, "created_at": self._watch.timestamp(), **members}


class SingleTranslation:
    """Translates a request whose response is never a stream; implements `Translation`."""

    def __init__(
        self, path: Endpoint, request: dict[str, object], translate: Callable[[bytes], dict[str, object]]
    ) -> None:
        self.path: str = path
        self.request = encode(request)
        self.streamed = False
        self.media_type = b"application/json"
        self._translate = translate

    def whole(self, body: bytes) -> bytes:
        """Translate the engine's complete successful response."""
        return encode(self._translate(body))

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate the engine's error response."""
        return encode({"error": engine_message(body, status)})

    def feed(self, data: bytes) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return nothing: there is no stream."""
        return b""

    def finish(self) -> bytes:
        """Return nothing: there is no stream."""
        return b""

    def failure(self, error: ProxyError) -> bytes:
        """Return the body that reports an error."""
        return error_body(error)
