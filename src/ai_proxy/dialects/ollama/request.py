"""Requests of Ollama's native API, translated into bodies of OpenAI's API."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from ai_proxy.dialects.body import JsonObject, without_none
from ai_proxy.dialects.tools import tool_call

IMAGE_TYPES = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "R0lGOD": "gif", "UklGR": "webp"}
"""Image types by their first characters in base64."""


def strip_latest(name: str) -> str:
    """Return the name of a model without the tag that Ollama's clients add to a name that has none.

    >>> strip_latest("llama3:latest"), strip_latest("llama3:8b"), strip_latest("llama3")
    ('llama3', 'llama3:8b', 'llama3')
    """
    return name.removesuffix(":latest")


class Options(Struct):
    """Sampling parameters; those that only concern how Ollama loads a model (`num_ctx`, ...) are ignored."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class ModelRequest(Struct):
    """What chat and completion requests have in common."""

    model: str
    stream: bool | None = None
    format: Literal["json", ""] | JsonObject | None = None
    options: Options | None = None
    think: bool | str | None = None

    @property
    def streamed(self) -> bool:
        """Whether to stream the response; Ollama streams unless the client declines."""
        return self.stream is not False

    @property
    def shows_thinking(self) -> bool:
        """Whether to include the model's thinking; Ollama includes it unless the client declines."""
        return self.think is not False


class CalledFunction(Struct):
    """The function that a tool call calls."""

    name: str
    arguments: JsonObject = {}


class ToolCall(Struct):
    """A tool call that the model made."""

    function: CalledFunction
    id: str | None = None


class Message(Struct):
    """One turn of the conversation."""

    role: str
    content: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatRequest(ModelRequest):
    """The body of /api/chat."""

    messages: list[Message] | None = None
    tools: list[JsonObject] | None = None


class GenerateRequest(ModelRequest):
    """The body of /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


def chat_body(request: ChatRequest) -> dict[str, object]:
    """Return the chat completion request for a chat."""
    messages = list(_conversation(request.messages or ()))
    return _body(request, {"messages": messages, "tools": request.tools or None})


def generate_body(request: GenerateRequest) -> dict[str, object]:
    """Return the chat completion request for a prompt, which becomes the user's message."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    user = {"role": "user", "content": _content(request.prompt, request.images)}
    return _body(request, {"messages": [*system, user]})


def completion_body(request: GenerateRequest) -> dict[str, object]:
    """Return the text completion request for a raw prompt."""
    return _body(request, {"prompt": request.prompt, "suffix": request.suffix or None})


def image_url(image: str) -> str:
    """Return the URL that holds an image in base64.

    >>> image_url("iVBORw0KGgoAAAA"), image_url("data:image/gif;base64,R0lGOD")
    ('data:image/png;base64,iVBORw0KGgoAAAA', 'data:image/gif;base64,R0lGOD')
    """
    if image.startswith("data:"):
        return image
    kind = next((kind for start, kind in IMAGE_TYPES.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"


def _body(request: ModelRequest, content: dict[str, object]) -> dict[str, object]:
    options = request.options or Options()
    limit = options.num_predict
    body: dict[str, object] = {
        "model": request.model,
        **content,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "typical_p": options.typical_p,
        "seed": options.seed,
        # In Ollama, -1 means no limit and -2 the rest of the context.
        "max_tokens": limit if limit is not None and limit > 0 else None,
        "stop": options.stop or None,
        # llama.cpp and LM Studio use the first name, vLLM and SGLang the second.
        "repeat_penalty": options.repeat_penalty,
        "repetition_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
    }
    if isinstance(request.think, str):
        body["reasoning_effort"] = request.think
    elif request.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": request.think}
    if isinstance(request.format, dict):
        schema = {"name": "answer", "schema": request.format, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.format:
        body["response_format"] = {"type": "json_object"}
    if request.streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return without_none(body)


def _conversation(messages: Sequence[Message]) -> Iterator[dict[str, object]]:
    """Yield messages in OpenAI's form, where a tool result names the call; in Ollama's it names the tool."""
    open_calls: deque[tuple[str, str]] = deque()
    made = 0
    for message in messages:
        turn: dict[str, object] = {
            "role": message.role,
            "content": _content(message.content, message.images),
        }
        if message.role == "tool":
            turn["tool_call_id"] = message.tool_call_id or _answered(open_calls, message.tool_name)
        if message.tool_calls:
            ids = [call.id or f"call_{made + n}" for n, call in enumerate(message.tool_calls)]
            made += len(ids)
            calls = [(name, call.function) for name, call in zip(ids, message.tool_calls, strict=True)]
            turn["tool_calls"] = [tool_call(name, one.name, one.arguments) for name, one in calls]
            open_calls = deque((name, one.name) for name, one in calls)
        yield turn


def _answered(open_calls: deque[tuple[str, str]], tool: str | None) -> str:
    """Remove the call that a result belongs to, and return its id: the first of its tool, else the first."""
    for call in open_calls:
        if tool is None or call[1] == tool:
            open_calls.remove(call)
            return call[0]
    return open_calls.popleft()[0] if open_calls else "call_0"


def _content(text: str | None, images: Sequence[str] | None) -> str | list[dict[str, object]]:
    if not images:
        return text or ""
    parts: list[dict[str, object]] = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "image_url", "image_url": {"url": image_url(image)}} for image in images]
    return parts
