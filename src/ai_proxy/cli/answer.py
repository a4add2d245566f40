"""An answer of a model, as it streams in from the proxy, and what it took."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from ai_proxy.cli.output import UserError

CHAT_PATH = "/v1/chat/completions"
MAX_LINE = 2**20
"""Longest event of a stream, in bytes: one that holds a whole tool call."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one line of a stream brings.

    Attributes:
        text: Of the answer.
        thought: Of what the model says to itself before it answers.
        finish: Why the answer ends; empty until it does.
        usage: Tokens of the prompt and of the answer; empty where they are not told.
        note: What the proxy says while the backend loads.
        end: Whether the stream ends here, as it should.
    """

    text: str = ""
    thought: str = ""
    finish: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    end: bool = False

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read a line of server-sent events; one that says nothing makes an empty piece.

        Raises:
            UserError: The line tells of an error.

        >>> Piece.parse(b'data: {"choices": [{"delta": {"content": "the quick"}}]}').text
        'the quick'
        >>> Piece.parse(b": loading llama3 12/40 s").note
        'loading llama3 12/40 s'
        """
        if line.startswith(b":"):
            return cls(note=line[1:].strip().decode(errors="replace"))
        data = line.removeprefix(b"data:").strip()
        if data == line.strip():
            return cls()
        if data == b"[DONE]":
            return cls(end=True)
        return cls._of(json.loads(data))

    @classmethod
    def _of(cls, event: Mapping[str, Any]) -> Self:
        if "error" in event:
            raise told_error(event)
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        return cls(
            text=delta.get("content") or "",
            thought=delta.get("reasoning_content") or delta.get("reasoning") or "",
            finish=choice.get("finish_reason") or "",
            usage=event.get("usage") or {},
        )


@dataclass(slots=True)
class Answer:
    """An answer so far; times in seconds from the request.

    Attributes:
        text: What the model has said.
        finish: Why it ended; empty when it did not by itself.
        pieces: Parts that have come, about one token each.
        usage: Tokens, as told at the end.
        first: When the first part came; None before.
        seconds: How long it has taken.
    """

    text: str = ""
    finish: str = ""
    pieces: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    first: float | None = None
    seconds: float = 0.0

    def add(self, piece: Piece, at: float) -> None:
        """Take a part of it in, that came `at` seconds from the request."""
        self.seconds = at
        self.text += piece.text
        self.finish = piece.finish or self.finish
        self.usage = piece.usage or self.usage
        if piece.text or piece.thought:
            self.pieces += 1
            self.first = at if self.first is None else self.first

    @property
    def tokens(self) -> int:
        """Tokens of the answer: as told, else counted."""
        return int(self.usage.get("completion_tokens") or self.pieces)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast it came, from its first token on; None where that cannot be told.

        >>> Answer(pieces=21, first=1.0, seconds=3.0).tokens_per_second
        10.0
        """
        took = self.seconds - (self.seconds if self.first is None else self.first)
        return (self.tokens - 1) / took if took > 0 and self.tokens > 1 else None

    def facts(self) -> dict[str, object]:
        """Return what scripts are told."""
        return {
            "content": self.text,
            "finish_reason": self.finish or None,
            "prompt_tokens": self.usage.get("prompt_tokens"),
            "completion_tokens": self.tokens,
            "seconds": round(self.seconds, 6),
            "time_to_first_token": None if self.first is None else round(self.first, 6),
            "tokens_per_second": self.tokens_per_second and round(self.tokens_per_second, 3),
        }

    def summary(self) -> str:
        """Say what it took.

        >>> Answer(pieces=21, first=1.0, seconds=3.0).summary()
        '21 tokens in 3.00 s, first after 1000 ms, 10.0 tokens/s'
        """
        words = [f"{self.tokens} token{'' if self.tokens == 1 else 's'} in {self.seconds:.2f} s"]
        if self.first is not None:
            words.append(f"first after {self.first * 1000:.0f} ms")
        if self.tokens_per_second is not None:
            words.append(f"{self.tokens_per_second:.1f} tokens/s")
        return ", ".join(words)


async def receive(
    door: Path, question: Mapping[str, object], answer: Answer, on: Callable[[Piece], None]
) -> None:
    """Ask, and take the answer in as it comes.

    Args:
        door: The socket where the proxy lets its owner ask.
        question: Body of the request, but for what makes it a stream.
        answer: Takes it in; holds what has come when this is cancelled.
        on: Told each piece.

    Raises:
        UserError: The proxy or the engine refused, or the answer broke off.
    """
    body = {**question, "stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    endless = aiohttp.ClientTimeout(total=None, sock_read=None)
    try:
        async with (
            aiohttp.ClientSession(
                "http://ai-proxy",
                connector=aiohttp.UnixConnector(str(door)),
                timeout=endless,
                read_bufsize=MAX_LINE,
            ) as session,
            session.post(CHAT_PATH, json=body) as response,
        ):
            await _raise_for_error(response)
            async for line in response.content:
                piece = Piece.parse(line)
                answer.add(piece, time.perf_counter() - began)
                on(piece)
                if piece.end:
                    return
    except aiohttp.ClientError as error:
        raise UserError(f"the connection to ai-proxy was lost ({error})", "connection_lost") from error
    raise UserError("the answer broke off before its end", "answer_broken")


async def _raise_for_error(response: aiohttp.ClientResponse) -> None:
    if response.ok:
        return
    try:
        raise told_error(await response.json(content_type=None))
    except (ValueError, TypeError, KeyError):
        raise UserError(f"the server answered {response.status} {response.reason}", "bad_answer") from None


def told_error(body: Mapping[str, Any]) -> UserError:
    """Return the error that a body of OpenAI's form tells of; engines take liberties with `code`.

    >>> told_error({"error": {"message": "no such model", "code": "model_not_found"}}).code
    'model_not_found'
    """
    error = body["error"]
    if not isinstance(error, Mapping):
        return UserError(str(error), "engine_error")
    code = error.get("code") or error.get("type") or "engine_error"
    return UserError(str(error["message"]), str(code))
