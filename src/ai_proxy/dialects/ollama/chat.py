"""POST /api/chat and /api/generate, translated into a chat or text completion."""

import re
from dataclasses import dataclass

from msgspec import Struct

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import decode, encode
from ai_proxy.dialects.completion import read_completion
from ai_proxy.dialects.ollama.reply import (
    LineWriter,
    Render,
    SingleTranslation,
    as_message,
    as_response,
    timestamp,
)
from ai_proxy.dialects.ollama.request import (
    ChatRequest,
    GenerateRequest,
    ModelRequest,
    chat_body,
    completion_body,
    generate_body,
)
from ai_proxy.dialects.translation import ChatTranslation, Translation

ZERO_DURATION = re.compile(r"0+(\.0+)?(ns|us|ms|s|m|h)?")
"""A duration of zero, as clients write it."""


def chat(body: bytes, clock: Clock) -> Translation:
    """Translate a chat request; one without messages only loads the model.

    Raises:
        InvalidRequestError: It is not a request that Ollama accepts.
    """
    request = decode(body, ChatRequest)
    if not request.messages:
        return _load(request.model, as_message, clock)
    return _translation(Endpoint.CHAT, request, chat_body(request), as_message, clock)


def generate(body: bytes, clock: Clock) -> Translation:
    """Translate a completion request; one without a prompt only loads the model.

    Raises:
        InvalidRequestError: It is not a request that Ollama accepts.
    """
    request = decode(body, GenerateRequest)
    if not request.prompt:
        return _load(request.model, as_response, clock)
    if request.raw or request.suffix:
        return _translation(Endpoint.COMPLETIONS, request, completion_body(request), as_response, clock)
    return _translation(Endpoint.CHAT, request, generate_body(request), as_response, clock)


def _translation(
    path: Endpoint, request: ModelRequest, body: dict[str, object], render: Render, clock: Clock
) -> ChatTranslation:
    reply = LineWriter(request.model, render, clock, shows_thinking=request.shows_thinking)
    return ChatTranslation(path, encode(body), reply, streamed=request.streamed)


def _load(model: str, render: Render, clock: Clock) -> SingleTranslation:
    """Translate a request that only loads a model.

    An engine loads a model when it gets a request for it, so this asks for a single token and drops the
    answer. The response is one line, whether or not the client asked for a stream.
    """
    request: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": "."}],
        "max_tokens": 1,
    }

    def loaded(body: bytes) -> dict[str, object]:
        read_completion(body)
        return _done("load", model, render, clock)

    return SingleTranslation(Endpoint.CHAT, request, loaded)


@dataclass(frozen=True, slots=True)
class Unload:
    """A request to unload a model; the proxy answers it without asking an engine.

    Attributes:
        model: Name of the model.
        answer: Body of the response, to send when the model is unloaded.
    """

    model: str
    answer: bytes


class _UnloadRequest(Struct):
    model: str
    prompt: str | None = None
    messages: list[object] | None = None
    keep_alive: float | str | None = None


def unload(path: str, body: bytes, clock: Clock) -> Unload | None:
    """Return what to do for a request that only unloads a model; None for any other request.

    Args:
        path: `/api/chat` or `/api/generate`.
        body: As the client sent it.
        clock: Gives the time in the response.

    Raises:
        InvalidRequestError: It is not a request that Ollama accepts.
    """
    if b'"keep_alive"' not in body:
        return None
    request = decode(body, _UnloadRequest)
    keep = request.keep_alive
    ends = ZERO_DURATION.fullmatch(keep) is not None if isinstance(keep, str) else keep == 0
    if request.prompt or request.messages or not ends:
        return None
    render = as_message if path.endswith("/chat") else as_response
    return Unload(request.model, encode(_done("unload", request.model, render, clock)))


def _done(reason: str, model: str, render: Render, clock: Clock) -> dict[str, object]:
    created = timestamp(clock.wall())
    empty = render("", "", ())
    return {"model": model, "created_at": created, **empty, "done": True, "done_reason": reason}
