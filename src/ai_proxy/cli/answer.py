"""A model's answer: streamed from the proxy, with what it took."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ai_proxy.cli.output import UserError
from ai_proxy.dialects import sse
from ai_proxy.dialects.completion import Completion, Facts, read

CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of the stream shows.

    Attributes:
        text: Text of the answer.
        thinking: The model's thinking before it answers.
        note: The proxy's comment while the backend loads.
    """

    text: str = ""
    thinking: str = ""
    note: str = ""


@dataclass(slots=True)
class Answer:
    """An answer, as far as it has arrived; times in seconds from the request.

    Attributes:
        text: The text of the answer.
        facts: Tokens and the finish reason.
        first: When the first token arrived; None before.
        seconds: When the last event arrived.
        interrupted: Whether the user stopped it.
    """

    text: str = ""
    facts: Facts = field(default_factory=Facts)
    first: float | None = None
    seconds: float = 0.0
    interrupted: bool = False

    def add(self, event: sse.Event, at: float) -> Piece:
        """Add an event that arrived `at` seconds from the request; return what it shows.

        Raises:
            UserError: The event reports an error.
            UpstreamInvalidError: The event is no part of a chat completion.
        """
        self.seconds = at
        if event.name == sse.COMMENT:
            return Piece(note=event.data.decode(errors="replace"))
        completion = read(event.data, Completion)
        if completion.failed:
            raise reported_error(json.loads(event.data))
        self.facts.add(completion)
        if completion.choice is None:
            return Piece()
        output = completion.choice.output
        self.text += output.text
        if self.first is None and (output.text or output.thinking):
            self.first = at
        return Piece(output.text, output.thinking)

    @property
    def tokens(self) -> int:
        """Tokens of the answer, as the engine reports them, or else the number of pieces."""
        return self.facts.completion_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Speed from the first token on; None for an answer too short to measure.

        >>> Answer(facts=Facts(pieces=21), first=1.0, seconds=3.0).tokens_per_second
        10.0
        """
        took = self.seconds - (self.seconds if self.first is None else self.first)
        return (self.tokens - 1) / took if took > 0 and self.tokens > 1 else None

    def as_data(self) -> dict[str, object]:
        """Return the answer as scripts get it."""
        return {
            "content": self.text,
            "finish_reason": "interrupted" if self.interrupted else self.facts.finish_reason,
            "prompt_tokens": self.facts.prompt_tokens or None,
            "completion_tokens": self.tokens,
            "seconds": round(self.seconds, 6),
            "time_to_first_token": None if self.first is None else round(self.first, 6),
            "tokens_per_second": self.tokens_per_second and round(self.tokens_per_second, 3),
        }

    def summary(self) -> str:
        """Return tokens and times as one line of text.

        >>> Answer(facts=Facts(pieces=21), first=1.0, seconds=3.0).summary()
        '21 tokens in 3.00 s, first after 1000 ms, 10.0 tokens/s'
        """
        parts = [f"{self.tokens} token{'' if self.tokens == 1 else 's'} in {self.seconds:.2f} s"]
        if self.first is not None:
            parts.append(f"first after {self.first * 1000:.0f} ms")
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:.1f} tokens/s")
        return ", ".join(parts)


async def receive(
    session: aiohttp.ClientSession,
    path: str,
    question: Mapping[str, object],
    answer: Answer,
    on: Callable[[Piece], object],
) -> None:
    """Send a chat request and receive the streamed answer.

    Args:
        session: A connection to the proxy.
        path: Path of the chat endpoint.
        question: Body of the request, without the members that ask for a stream.
        answer: Takes what arrives; keeps it when this is cancelled.
        on: Called with each piece.

    Raises:
        UserError: The proxy or the engine refused the request, or the answer broke off.
        UpstreamInvalidError: The response is not a stream of chat completion chunks.
    """
    body = {**question, "stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    events = sse.Parser(comments=True)
    async with session.post(path, json=body) as response:
        if not response.ok:
            await _raise_error(response)
        async for data in response.content.iter_any():
            for event in events.feed(data):
                if event.data == sse.DONE:
                    answer.seconds = time.perf_counter() - began
                    return
                on(answer.add(event, time.perf_counter() - began))
    raise UserError("the answer broke off before its end; try again", "answer_broken")


async def _raise_error(response: aiohttp.ClientResponse) -> None:
    try:
        raise reported_error(await response.json(content_type=None))
    except (ValueError, TypeError, KeyError):
        raise UserError(f"the server answered {response.status} {response.reason}", "bad_answer") from None


def reported_error(body: Mapping[str, Any]) -> UserError:
    """Return the error in a body of OpenAI's form; engines differ in whether they set `code`.

    >>> reported_error({"error": {"message": "no such model", "code": "model_not_found"}}).code
    'model_not_found'
    """
    error = body["error"]
    if not isinstance(error, Mapping):
        return UserError(str(error), "engine_error")
    code = error.get("code") or error.get("type") or "engine_error"
    return UserError(str(error["message"]), str(code))
