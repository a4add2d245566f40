"""What a model says, in the members that answers have on one path or the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_proxy.dialects.body import JsonObject
from ai_proxy.dialects.tools import Call


@dataclass(frozen=True, slots=True)
class Words:
    """What is said at once.

    Attributes:
        text: Meant for the reader.
        thinking: Said by the model to itself.
        calls: Of tools, with their arguments.
    """

    text: str = ""
    thinking: str = ""
    calls: Sequence[tuple[Call, JsonObject]] = ()


type Say = Callable[[Words], dict[str, object]]
"""Returns the members of an answer that tell what is said."""

NOTHING = Words()


def message(words: Words) -> dict[str, object]:
    """Say it as a message of a chat.

    >>> message(Words(" the"))
    {'message': {'role': 'assistant', 'content': ' the'}}
    """
    said: dict[str, object] = {"role": "assistant", "content": words.text}
    if words.thinking:
        said["thinking"] = words.thinking
    if words.calls:
        said["tool_calls"] = [_call(call, arguments) for call, arguments in words.calls]
    return {"message": said}


def response(words: Words) -> dict[str, object]:
    """Say it as a completion, where there are no tools to call.

    >>> response(Words(thinking="Hm."))
    {'response': '', 'thinking': 'Hm.'}
    """
    said: dict[str, object] = {"response": words.text}
    return said | {"thinking": words.thinking} if words.thinking else said


def _call(call: Call, arguments: JsonObject) -> dict[str, object]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "function": function} if call.id else {"function": function}
