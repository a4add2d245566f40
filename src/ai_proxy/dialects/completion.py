"""Responses of engines on OpenAI's paths, as far as the other dialects can express them."""

from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects.errors import engine_message


class Function(Struct):
    """The function that a tool call calls, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    """A tool call, or a piece of one; in a stream, `index` identifies the call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(Struct):
    """What the model generated: what one event of a stream adds to the message, or the whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.content or ""

    @property
    def thinking(self) -> str:
        """The model's reasoning; vLLM and Ollama call it `reasoning`, others `reasoning_content`."""
        return self.reasoning_content or self.reasoning or ""


class Choice(Struct):
    """One answer: `message` when complete, `delta` in a stream, `text` on /v1/completions."""

    index: int = 0
    message: Delta | None = None
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def output(self) -> Delta:
        """What the model generated, whichever member holds it."""
        return self.delta or self.message or Delta(self.text)


class PromptDetails(Struct):
    """A breakdown of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(Struct):
    """Tokens, as the engine counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Timings(Struct):
    """Tokens and durations that llama.cpp reports; durations in milliseconds."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Completion(Struct):
    """A complete chat or text completion, or one chunk of a streamed one."""

    id: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: Raw | UnsetType = UNSET

    @property
    def failed(self) -> bool:
        """Whether it is an error, which engines also send under the status of a success."""
        return self.error is not UNSET and bytes(self.error) != b"null"

    @property
    def choice(self) -> Choice | None:
        """The first choice; no translated request asks for several."""
        return next((choice for choice in self.choices or () if choice.index == 0), None)


def read[T](data: bytes, kind: type[T]) -> T:
    """Decode an engine's JSON as a value of the given type.

    Raises:
        UpstreamInvalidError: It does not have that type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalidError(f"the engine's response is invalid: {error}") from None


def read_completion(data: bytes) -> Completion:
    """Decode an engine's completion, or one chunk of it.

    Raises:
        UpstreamInvalidError: It is something else, or an error.
    """
    completion = read(data, Completion)
    if completion.failed:
        raise UpstreamInvalidError(f"the engine's response ended with an error: {engine_message(data, 500)}")
    return completion


@dataclass(slots=True)
class Facts:
    """What a response reports besides the model's output; complete at the end of the response.

    Attributes:
        id: The engine's id for the completion.
        finish_reason: Why it ended, as OpenAI's API names it; None before it ends.
        stop_reason: The stop sequence that ended it; only vLLM reports it.
        usage: Tokens, where the engine reports them.
        timings: Durations, where the engine reports them.
        pieces: Number of deltas with text.
    """

    id: str = ""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    usage: Usage = field(default_factory=Usage)
    timings: Timings | None = None
    pieces: int = 0

    def add(self, completion: Completion) -> None:
        """Add what a completion, or the next chunk of one, reports."""
        self.id = self.id or completion.id or ""
        self.usage = completion.usage or self.usage
        self.timings = completion.timings or self.timings
        if choice := completion.choice:
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.stop_reason = choice.stop_reason or self.stop_reason
            self.pieces += bool(choice.output.text or choice.output.thinking)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the engine took from its cache."""
        details = self.usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, including the cached ones."""
        timed = self.timings.prompt_n + self.timings.cache_n if self.timings else 0
        return self.usage.prompt_tokens or timed

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer; the number of deltas where the engine reports none."""
        timed = self.timings.predicted_n if self.timings else 0
        return self.usage.completion_tokens or timed or self.pieces
