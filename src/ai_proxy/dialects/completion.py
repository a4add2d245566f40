"""What engines answer on OpenAI's paths, as far as other dialects have words for it."""

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
    """A tool call, or a piece of one; `index` tells in a stream which one is meant."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(Struct):
    """What the model says: a whole message, or what a stream adds to it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """What is meant for the reader."""
        return self.content or ""

    @property
    def thinking(self) -> str:
        """What the model says to itself; vLLM and Ollama call it `reasoning`, others `reasoning_content`."""
        return self.reasoning_content or self.reasoning or ""


class Choice(Struct):
    """One answer: `message` when whole, `delta` in a stream, `text` on /v1/completions."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def said(self) -> Said:
        """What the model says, wherever it stands."""
        return self.delta or self.message or Said(self.text)


class PromptDetails(Struct):
    """What the tokens of a prompt were."""

    cached_tokens: int | None = None


class Usage(Struct):
    """Tokens, as the engine counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Timings(Struct):
    """How long it took, as llama.cpp tells; durations in milliseconds."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Answer(Struct):
    """A whole answer, or one event of a stream."""

    id: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: Raw | UnsetType = UNSET

    @property
    def choice(self) -> Choice | None:
        """The first answer; nothing here asks for several."""
        return next((choice for choice in self.choices or () if choice.index == 0), None)


def read[T](data: bytes, kind: type[T]) -> T:
    """Return what an engine answers as what it has to be.

    Raises:
        UpstreamInvalidError: It is something else.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalidError(f"the engine's answer is not as it should be: {error}") from None


def read_answer(data: bytes) -> Answer:
    """Return what an engine answers to a chat or a completion.

    Raises:
        UpstreamInvalidError: It is something else, or an error under the status of a success.
    """
    answer = read(data, Answer)
    if answer.error is not UNSET and bytes(answer.error) != b"null":
        raise UpstreamInvalidError(f"the engine broke off with an error: {engine_message(data, 500)}")
    return answer


@dataclass(slots=True)
class Facts:
    """What an answer tells beside what the model says; complete when the answer is.

    Attributes:
        id: The engine's name for the answer.
        finish_reason: Why it ended, in OpenAI's words; None before.
        stop_reason: The text that ended it, as vLLM tells.
        usage: Tokens, where the engine tells.
        timings: How long it took, where the engine tells.
        pieces: How many pieces of text have come.
    """

    id: str = ""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    usage: Usage = field(default_factory=Usage)
    timings: Timings | None = None
    pieces: int = 0

    def note(self, answer: Answer) -> None:
        """Take up what an answer, or the next event of one, tells."""
        self.id = self.id or answer.id or ""
        self.usage = answer.usage or self.usage
        self.timings = answer.timings or self.timings
        if choice := answer.choice:
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.stop_reason = choice.stop_reason or self.stop_reason
            self.pieces += bool(choice.said.text or choice.said.thinking)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the engine had in its cache."""
        details = self.usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those in the cache among them."""
        timed = self.timings.prompt_n + self.timings.cache_n if self.timings else 0
        return self.usage.prompt_tokens or timed

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer; where the engine does not tell, how many pieces it came in."""
        timed = self.timings.predicted_n if self.timings else 0
        return self.usage.completion_tokens or timed or self.pieces
