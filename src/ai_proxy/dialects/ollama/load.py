"""Requests that only load a model, or unload it: those with nothing to answer."""

import re
from dataclasses import dataclass

from msgspec import Struct

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import decode, encode
from ai_proxy.dialects.completion import read_answer
from ai_proxy.dialects.ollama.say import NOTHING, Say, message, response
from ai_proxy.dialects.ollama.single import SingleTranslation
from ai_proxy.dialects.ollama.timing import timestamp

NO_TIME = re.compile(r"0+(\.0+)?(ns|us|ms|s|m|h)?")
"""A duration of nothing, as clients write it."""


def load(model: str, say: Say, clock: Clock) -> SingleTranslation:
    """Translate a request that only loads a model.

    An engine loads a model when it is asked something: so it is asked for a single token, and what it says
    is not told. The answer is one line, whether the client asked for a stream or not.
    """
    asked: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": "."}],
        "max_tokens": 1,
    }

    def loaded(body: bytes) -> dict[str, object]:
        read_answer(body)
        return _done("load", model, say, clock)

    return SingleTranslation(Endpoint.CHAT, asked, loaded)


@dataclass(frozen=True, slots=True)
class Unload:
    """A request to unload a model, for which no engine is asked.

    Attributes:
        model: Which.
        answer: The body to answer with, once that is done.
    """

    model: str
    answer: bytes


class _Request(Struct):
    model: str
    prompt: str | None = None
    messages: list[object] | None = None
    keep_alive: float | str | None = None


def unload(path: str, body: bytes, clock: Clock) -> Unload | None:
    """Return what is to be done for a request that only unloads a model; None for any other.

    Args:
        path: `/api/chat` or `/api/generate`.
        body: As the client sent it.
        clock: For the moment in the answer.

    Raises:
        InvalidRequestError: It is not what Ollama takes.
    """
    if b'"keep_alive"' not in body:
        return None
    request = decode(body, _Request)
    if request.prompt or request.messages or not _is_nothing(request.keep_alive):
        return None
    say = message if path.endswith("/chat") else response
    return Unload(request.model, encode(_done("unload", request.model, say, clock)))


def _is_nothing(keep_alive: float | str | None) -> bool:
    return keep_alive == 0 or (isinstance(keep_alive, str) and NO_TIME.fullmatch(keep_alive) is not None)


def _done(reason: str, model: str, say: Say, clock: Clock) -> dict[str, object]:
    moment = timestamp(clock.wall())
    return {"model": model, "created_at": moment, **say(NOTHING), "done": True, "done_reason": reason}
