"""The inference endpoints in the OpenAPI document; the gateway serves them, not the application."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_proxy.core.abilities import Endpoint

JSON, FORM, EVENTS = "application/json", "multipart/form-data", "text/event-stream"

ERRORS = {
    400: "The request is invalid; `param` names the part that is wrong.",
    404: "No service offers this model; the message suggests similar names.",
    413: "The body exceeds the limit for JSON.",
    422: "The model accepts no images, or no audio.",
    501: "The engine of the model lacks this endpoint; the message names the engine.",
    502: "The backend is unreachable, or closed the connection.",
    503: "The service is stopped, failed or loading; `Retry-After` says when to retry.",
    504: "The backend did not answer in time.",
}
"""The proxy's own errors, by status."""

OPENAI_ERROR, ANTHROPIC_ERROR = "ApiErrorBody", "AnthropicErrorBody"
"""Names of schemas."""


@dataclass(frozen=True, slots=True)
class Inference:
    """Documentation of one endpoint.

    Attributes:
        summary: In a few words.
        description: What its users must know.
        properties: Of the body, beside `model`; the engine gets all others, too.
        required: Names of those that are required.
        request: Example of a body.
        response: Example of an answer.
        events: Example of an answer with `stream: true`; empty where streams are not supported.
        media: Media type of the body.
        answer: Media type of the answer.
    """

    summary: str
    description: str
    properties: Mapping[str, object]
    required: tuple[str, ...]
    request: Mapping[str, object]
    response: object
    events: str = ""
    media: str = JSON
    answer: str = JSON


def _property(kind: str, description: str, **more: object) -> dict[str, object]:
    return {"type": kind, "description": description, **more}


def _items(description: str) -> dict[str, object]:
    return _property("array", description, items={"type": "object"}, minItems=1)


_MODEL = _property("string", "A name that `GET /v1/models` lists, `service/model` or `flm://engine/model`.")
_STREAM = _property("boolean", "Whether to stream the answer as server-sent events.", default=False)
_MAX_TOKENS = _property("integer", "Maximum length of the answer, in tokens.", minimum=1)
_TEMPERATURE = _property("number", "Clamped to the range that the engine accepts.", minimum=0, maximum=2)
_MESSAGES = _items("The conversation so far, each turn with `role` and `content`.")
_FILE = _property("string", "The file.", format="binary")
_PROMPT = _property("string", "Description of the image.")

_HELLO = [{"role": "user", "content": "Hello!"}]
_USAGE = {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
_CREATED = 1700000000


def _event(data: str, name: str = "") -> str:
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


ENDPOINTS: dict[Endpoint, Inference] = {
    Endpoint.CHAT: Inference(
        "Chat with a model",
        "OpenAI's chat completions. While a backend loads, a stream begins with comments that show the "
        "progress. An error in a stream that has begun is an event with `error`; the stream then ends "
        "without `[DONE]`.",
        {
            "messages": _MESSAGES,
            "stream": _STREAM,
            "max_tokens": _MAX_TOKENS,
            "temperature": _TEMPERATURE,
            "tools": _items("Functions that the model may call."),
        },
        ("messages",),
        {"model": "llama3", "messages": _HELLO},
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": _CREATED,
            "model": "llama3",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi there"},
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        },
        ": loading llama3 12/40 s\n\n"
        + _event('{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}')
        + _event("[DONE]"),
    ),
    Endpoint.COMPLETIONS: Inference(
        "Continue a text",
        "OpenAI's completions: no roles, no template.",
        {
            "prompt": _property("string", "The text."),
            "stream": _STREAM,
            "max_tokens": _MAX_TOKENS,
            "temperature": _TEMPERATURE,
        },
        ("prompt",),
        {"model": "llama3", "prompt": "Once upon a time", "max_tokens": 16},
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": _CREATED,
            "model": "llama3",
            "choices": [{"index": 0, "text": " there was", "finish_reason": "length"}],
            "usage": _USAGE,
        },
        _event('{"object":"text_completion","choices":[{"index":0,"text":" there"}]}') + _event("[DONE]"),
    ),
    Endpoint.EMBEDDINGS: Inference(
        "Embed texts",
        "OpenAI's embeddings: one vector for each text.",
        {"input": {"description": "A text, or a list of them.", "type": ["string", "array"]}},
        ("input",),
        {"model": "embedder", "input": ["a text", "another"]},
        {
            "object": "list",
            "model": "embedder",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.12, -0.34]}],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    Endpoint.RESPONSES: Inference(
        "Ask for a response",
        "OpenAI's responses, for engines that support them. Nothing is kept between requests.",
        {
            "input": {"description": "A text, or a list of items.", "type": ["string", "array"]},
            "stream": _STREAM,
            "max_output_tokens": _MAX_TOKENS,
        },
        ("input",),
        {"model": "llama3", "input": "Hello!"},
        {
            "id": "resp_1",
            "object": "response",
            "created_at": _CREATED,
            "model": "llama3",
            "status": "completed",
            "output": [
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hi there", "annotations": []}],
                }
            ],
            "usage": {"input_tokens": 6, "output_tokens": 2, "total_tokens": 8},
        },
        _event('{"type":"response.output_text.delta","delta":"Hi"}', "response.output_text.delta"),
    ),
    Endpoint.RERANK: Inference(
        "Rank documents",
        "How well each document answers a query; for engines that support it.",
        {
            "query": _property("string", "What is looked for."),
            "documents": _property("array", "The texts to rank.", items={"type": "string"}),
            "top_n": _property("integer", "How many to return.", minimum=1),
        },
        ("query", "documents"),
        {"model": "ranker", "query": "fast animals", "documents": ["a fox", "a stone"]},
        {"model": "ranker", "results": [{"index": 0, "relevance_score": 0.93}]},
    ),
    Endpoint.MESSAGES: Inference(
        "Send messages",
        "Anthropic's Messages API. For engines that lack it, the proxy translates the request to chat "
        "completions, and the answer back, including streams and tools.",
        {
            "messages": _MESSAGES,
            "max_tokens": _MAX_TOKENS,
            "system": {"description": "Instructions.", "type": ["string", "array"]},
            "stream": _STREAM,
            "tools": _items("Functions that the model may call."),
        },
        ("messages", "max_tokens"),
        {"model": "llama3", "max_tokens": 64, "messages": _HELLO},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "llama3",
            "content": [{"type": "text", "text": "Hi there"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 6, "output_tokens": 2},
        },
        _event(
            '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}',
            "content_block_delta",
        ),
    ),
    Endpoint.COUNT_TOKENS: Inference(
        "Count the tokens of messages",
        "Anthropic's token count of a request; for engines that support it.",
        {"messages": _MESSAGES},
        ("messages",),
        {"model": "llama3", "messages": _HELLO},
        {"input_tokens": 6},
    ),
    Endpoint.TRANSCRIPTIONS: Inference(
        "Transcribe speech",
        "OpenAI's audio transcriptions. The upload is streamed; send `model` before the file.",
        {"file": _FILE},
        ("file",),
        {"model": "whisper"},
        {"text": "Hello there."},
        media=FORM,
    ),
    Endpoint.TRANSLATIONS: Inference(
        "Translate speech to English",
        "OpenAI's audio translations.",
        {"file": _FILE},
        ("file",),
        {"model": "whisper"},
        {"text": "Hello there."},
        media=FORM,
    ),
    Endpoint.SPEECH: Inference(
        "Speak a text",
        "OpenAI's speech: the answer is an audio file.",
        {"input": _property("string", "The text."), "voice": _property("string", "Whose voice.")},
        ("input",),
        {"model": "speaker", "input": "Hello there.", "voice": "alloy"},
        None,
        answer="audio/mpeg",
    ),
    Endpoint.IMAGES: Inference(
        "Generate an image",
        "OpenAI's image generations.",
        {"prompt": _PROMPT},
        ("prompt",),
        {"model": "painter", "prompt": "a fox"},
        {"created": _CREATED, "data": [{"b64_json": "iVBORw0KGgo="}]},
    ),
    Endpoint.IMAGE_EDITS: Inference(
        "Edit an image",
        "OpenAI's image edits.",
        {"image": _FILE, "prompt": _PROMPT},
        ("image", "prompt"),
        {"model": "painter", "prompt": "a red fox"},
        {"created": _CREATED, "data": [{"b64_json": "iVBORw0KGgo="}]},
        media=FORM,
    ),
}

SCHEMAS: dict[str, dict[str, Any]] = {
    ANTHROPIC_ERROR: {
        "type": "object",
        "description": "The proxy's own error under `/v1/messages`; errors of engines are forwarded.",
        "properties": {
            "type": _property("string", "Always `error`."),
            "error": _property(
                "object",
                "What went wrong.",
                properties={
                    "type": _property("string", "The kind of error, in Anthropic's terms."),
                    "message": _property("string", "What went wrong this time, and what to do."),
                },
                required=["type", "message"],
            ),
            "request_id": _property("string", "Identifies the request in the proxy's log."),
        },
        "required": ["type", "error", "request_id"],
        "examples": [
            {
                "type": "error",
                "error": {"type": "not_found_error", "message": "there is no model 'lama3'"},
                "request_id": "5f0c1d3e",
            }
        ],
    }
}
"""Schemas that these paths refer to, beside the application's."""


def operations() -> dict[str, dict[str, Any]]:
    """Return the inference endpoints for the OpenAPI document's `paths`."""
    return {endpoint.value: {"post": _operation(endpoint, one)} for endpoint, one in ENDPOINTS.items()}


def _operation(endpoint: Endpoint, one: Inference) -> dict[str, Any]:
    anthropic = endpoint in (Endpoint.MESSAGES, Endpoint.COUNT_TOKENS)
    shape = ANTHROPIC_ERROR if anthropic else OPENAI_ERROR
    return {
        "tags": ["inference"],
        "summary": one.summary,
        "description": one.description,
        "operationId": endpoint.name.lower(),
        "requestBody": {"required": True, "content": {one.media: _body(one)}},
        "responses": {
            "200": {"description": "The engine's answer.", "content": _answers(one)},
            **{str(status): _error(described, shape) for status, described in ERRORS.items()},
            "default": {"description": "An error of the engine, forwarded unchanged."},
        },
    }


def _body(one: Inference) -> dict[str, Any]:
    properties = {"model": _MODEL, **one.properties}
    schema = {"type": "object", "properties": properties, "required": ["model", *one.required]}
    return {"schema": schema, "example": one.request}


def _answers(one: Inference) -> dict[str, Any]:
    if one.response is None:
        return {one.answer: {"schema": {"type": "string", "format": "binary"}}}
    content: dict[str, Any] = {one.answer: {"schema": {"type": "object"}, "example": one.response}}
    if one.events:
        content[EVENTS] = {"schema": {"type": "string"}, "example": one.events}
    return content


def _error(description: str, shape: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {"X-AI-Proxy-Error": {"description": "The code.", "schema": {"type": "string"}}},
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{shape}"}}},
    }
