"""Requests of Anthropic's Messages API, translated into chat completion requests."""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.dialects.body import JsonObject, without_none
from ai_proxy.dialects.tools import tool_call


class Block(Struct, tag_field="type"):
    """A part of a message; members that only Anthropic's own service uses (`cache_control`) are ignored."""


class TextBlock(Block, tag="text"):
    """Text."""

    text: str


class Base64Source(Struct, tag_field="type", tag="base64"):
    """An image in the request body."""

    media_type: str
    data: str

    @property
    def url(self) -> str:
        """The image as a data URL (RFC 2397)."""
        return f"data:{self.media_type};base64,{self.data}"


class UrlSource(Struct, tag_field="type", tag="url"):
    """An image that the engine fetches."""

    url: str


class ImageBlock(Block, tag="image"):
    """An image."""

    source: Base64Source | UrlSource


class ToolUseBlock(Block, tag="tool_use"):
    """A tool call that the model made."""

    id: str
    name: str
    input: JsonObject


class ToolResultBlock(Block, tag="tool_result"):
    """The result of a tool call."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(Block, tag="thinking"):
    """The model's earlier thinking; OpenAI's API has no place for it."""


class RedactedThinkingBlock(Block, tag="redacted_thinking"):
    """The model's earlier thinking, encrypted."""


AnyBlock = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Message(Struct):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnyBlock]


class Tool(Struct):
    """A tool that the model may call; a tool without a schema is one that Anthropic's own service runs."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None


class ToolChoice(Struct):
    """Which tools the model may or must call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(Struct):
    """Data about the request."""

    user_id: str | None = None


class Thinking(Struct):
    """Whether the client wants to see the model's thinking."""

    type: str


class Format(Struct):
    """The form that the answer must have."""

    type: Literal["json_schema"]
    schema: JsonObject


class OutputConfig(Struct):
    """Options of the model's output."""

    format: Format | None = None


class Request(Struct):
    """The body of a request."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether to write thinking blocks: clients that did not ask take the first block for the answer."""
        return self.thinking is not None and self.thinking.type != "disabled"


def chat(request: Request) -> dict[str, object]:
    """Return the chat completion request.

    Raises:
        InvalidRequestError: It has no messages, or a part without an equivalent.
    """
    if not request.messages:
        raise InvalidRequestError("messages: at least one is required", "messages")
    body: dict[str, object] = {
        "model": request.model,
        "messages": list(_conversation(request)),
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "user": request.metadata and request.metadata.user_id,
        **_tools(request),
    }
    if request.output_config is not None and request.output_config.format is not None:
        schema = {"name": "answer", "schema": request.output_config.format.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return without_none(body)


def _conversation(request: Request) -> Iterator[dict[str, object]]:
    if request.system:
        system = request.system if isinstance(request.system, str) else _text(request.system)
        yield {"role": "system", "content": system}
    for number, message in enumerate(request.messages):
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif message.role == "user":
            yield from _user(message.content, f"messages[{number}].content")
        else:
            yield _turn(message.role, message.content, f"messages[{number}].content")


def _user(blocks: Sequence[AnyBlock], where: str) -> Iterator[dict[str, object]]:
    """Yield the tool results, which must directly follow their calls, and then the user's message."""
    parts: list[TextBlock | ImageBlock] = []
    for number, block in enumerate(blocks):
        match block:
            case ToolResultBlock():
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}
                if not isinstance(block.content, str):
                    parts += [part for part in block.content or () if isinstance(part, ImageBlock)]
            case TextBlock() | ImageBlock():
                parts.append(block)
            case _:
                raise _misplaced(block, "user", f"{where}[{number}]")
    if parts:
        yield {"role": "user", "content": _content(parts)}


def _turn(role: str, blocks: Sequence[AnyBlock], where: str) -> dict[str, object]:
    texts: list[TextBlock] = []
    calls: list[dict[str, object]] = []
    for number, block in enumerate(blocks):
        match block:
            case TextBlock():
                texts.append(block)
            case ToolUseBlock() if role == "assistant":
                calls.append(tool_call(block.id, block.name, block.input))
            case ThinkingBlock() | RedactedThinkingBlock() if role == "assistant":
                pass
            case _:
                raise _misplaced(block, role, f"{where}[{number}]")
    message: dict[str, object] = {"role": role, "content": _text(texts)}
    return message | {"tool_calls": calls} if calls else message


def _misplaced(block: AnyBlock, role: str, where: str) -> InvalidRequestError:
    kind = block.__struct_config__.tag
    return InvalidRequestError(
        f"{where}: a block of type {kind} is not allowed in a message with the role {role}", where
    )


def _text(blocks: Sequence[TextBlock]) -> str:
    # Some chat templates accept no list of parts; llama.cpp and vLLM join texts in the same way.
    return "\n".join(block.text for block in blocks)


def _content(parts: Sequence[TextBlock | ImageBlock]) -> str | list[dict[str, object]]:
    texts = [part for part in parts if isinstance(part, TextBlock)]
    if len(texts) == len(parts):
        return _text(texts)
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextBlock)
        else {"type": "image_url", "image_url": {"url": part.source.url}}
        for part in parts
    ]


def _result(block: ToolResultBlock) -> str:
    content = block.content or ""
    if not isinstance(content, str):
        content = _text([part for part in content if isinstance(part, TextBlock)])
    return f"Error: {content}" if block.is_error else content


def _tools(request: Request) -> dict[str, object]:
    if not request.tools:
        return {}
    tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools)]
    if request.tool_choice is None:
        return {"tools": tools}
    alone = request.tool_choice.disable_parallel_tool_use
    return {
        "tools": tools,
        "tool_choice": _choice(request.tool_choice),
        "parallel_tool_calls": None if alone is None else not alone,
    }


def _tool(tool: Tool, where: str) -> dict[str, object]:
    if tool.input_schema is None:
        raise InvalidRequestError(
            f"{where}.input_schema: is required; this engine does not have tools that Anthropic runs itself, "
            f"such as {tool.type}",
            f"{where}.input_schema",
        )
    function: dict[str, object] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": without_none(function)}


def _choice(choice: ToolChoice) -> object:
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if choice.name is None:
        raise InvalidRequestError("tool_choice.name: is required when type is tool", "tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}
