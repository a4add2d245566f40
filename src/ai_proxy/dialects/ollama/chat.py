"""POST /api/chat and /api/generate, asked of an engine as a chat completion or a completion."""

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import decode, encode
from ai_proxy.dialects.chat import ChatTranslation
from ai_proxy.dialects.completion import Facts, Said
from ai_proxy.dialects.ollama.errors import error_body, render
from ai_proxy.dialects.ollama.load import load
from ai_proxy.dialects.ollama.request import (
    Asked,
    ChatRequest,
    GenerateRequest,
    chat_body,
    completion_body,
    generate_body,
)
from ai_proxy.dialects.ollama.say import NOTHING, Say, Words, message, response
from ai_proxy.dialects.ollama.timing import Stopwatch
from ai_proxy.dialects.tools import Calls, usable, whole_calls
from ai_proxy.dialects.translation import Translation

DONE_REASONS = {"length": "length"}
"""What Ollama calls the end of an answer; everything else is a plain `stop`."""


def chat(body: bytes, clock: Clock) -> Translation:
    """Translate a request for a chat; one without messages only loads the model.

    Raises:
        InvalidRequestError: It is not what Ollama takes.
    """
    request = decode(body, ChatRequest)
    if not request.messages:
        return load(request.model, message, clock)
    return _translation(Endpoint.CHAT, request, chat_body(request), message, clock)


def generate(body: bytes, clock: Clock) -> Translation:
    """Translate a request for a completion; one without a prompt only loads the model.

    Raises:
        InvalidRequestError: It is not what Ollama takes.
    """
    request = decode(body, GenerateRequest)
    if not request.prompt:
        return load(request.model, response, clock)
    if request.raw or request.suffix:
        return _translation(Endpoint.COMPLETIONS, request, completion_body(request), response, clock)
    return _translation(Endpoint.CHAT, request, generate_body(request), response, clock)


class NativeReply:
    """Says what a model has answered in lines of JSON; a `Reply`."""

    media_type = b"application/x-ndjson"

    def __init__(self, request: Asked, say: Say, clock: Clock) -> None:
        self._model = request.model
        self._shows_thinking = request.shows_thinking
        self._say = say
        self._watch = Stopwatch(clock)
        self._calls = Calls()

    def whole(self, said: Said, facts: Facts) -> bytes:
        """Return the whole answer."""
        calls = usable(whole_calls(said.tool_calls), facts.finish_reason)
        content = self._say(Words(said.text, self._visible(said), calls))
        return encode(self._line(content, done=True) | self._ending(facts))

    def piece(self, said: Said, facts: Facts) -> bytes:  # noqa: ARG002 - of use to other dialects
        """Return the line that tells what the model has added; tool calls are told whole, at the end."""
        for call in said.tool_calls or ():
            self._calls.add(call)
        if said.text or said.thinking or said.tool_calls:
            self._watch.token()
        thinking = self._visible(said)
        if not said.text and not thinking:
            return b""
        return self._render(self._say(Words(said.text, thinking)))

    def end(self, facts: Facts) -> bytes:
        """Return the last lines."""
        calls = usable(self._calls.all, facts.finish_reason)
        called = self._render(self._say(Words(calls=calls))) if calls else b""
        last = self._line(self._say(NOTHING), done=True) | self._ending(facts)
        return called + encode(last) + b"\n"

    def refusal(self, status: int, words: str) -> bytes:  # noqa: ARG002 - of use to other dialects
        """Return the body of an error that the engine answers with."""
        return render(words)

    def failure(self, error: ProxyError) -> bytes:
        """Return the line that tells of an error."""
        return error_body(error) + b"\n"

    def _visible(self, said: Said) -> str:
        return said.thinking if self._shows_thinking else ""

    def _render(self, content: dict[str, object]) -> bytes:
        return encode(self._line(content, done=False)) + b"\n"

    def _line(self, content: dict[str, object], *, done: bool) -> dict[str, object]:
        return {"model": self._model, "created_at": self._watch.timestamp(), **content, "done": done}

    def _ending(self, facts: Facts) -> dict[str, object]:
        reason = DONE_REASONS.get(facts.finish_reason or "", "stop")
        return {"done_reason": reason, **self._watch.statistics(facts)}


def _translation(
    path: Endpoint, request: Asked, asked: dict[str, object], say: Say, clock: Clock
) -> ChatTranslation:
    reply = NativeReply(request, say, clock)
    return ChatTranslation(path, encode(asked), reply, streamed=request.streamed)
