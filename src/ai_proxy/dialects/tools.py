"""Tool calls as models generate them: in pieces, and not always well-formed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.dialects.body import JsonObject, encode
from ai_proxy.dialects.completion import Function, ToolCall, read

SIZE_OF_PIECE = 100
"""Bytes that a piece of a call takes beside its text."""


@dataclass(slots=True, eq=False)
class Call:
    """One tool call, as far as it has arrived.

    Attributes:
        id: The engine's id for it; empty when the engine gives none.
        name: Name of the tool.
        pieces: Pieces of its arguments, which together are a JSON object.
    """

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> JsonObject:
        """Its arguments, once the call is complete.

        Raises:
            UpstreamInvalidError: They are not a JSON object.
        """
        text = "".join(self.pieces).strip()
        try:
            return read(text.encode(), JsonObject) if text else {}
        except UpstreamInvalidError:
            raise UpstreamInvalidError(
                f"the model called the tool {self.name!r} with arguments that are not a JSON object"
            ) from None


class Calls:
    """Assembles tool calls from the deltas of a stream."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self._by_index: dict[int, Call] = {}
        self._held = 0

    def add(self, piece: ToolCall) -> tuple[Call, str]:
        """Add a piece; return its call, and the piece of the arguments that it brings.

        Another id begins another call: some engines number every call 0.

        Raises:
            UpstreamInvalidError: The piece begins a call without the name of a tool, or is too much.
        """
        index = piece.index or 0
        function = piece.function or Function()
        added = function.arguments or ""
        self._held += len(added) + len(function.name or "") + len(piece.id or "") + SIZE_OF_PIECE
        if self._held > MAX_COLLECTED:
            raise UpstreamInvalidError(f"the model's tool calls take more than {MAX_COLLECTED} bytes")
        call = self._by_index.get(index)
        if call is None or (piece.id and piece.id != call.id):
            if not function.name:
                raise UpstreamInvalidError("the engine's response has a tool call without the name of a tool")
            call = self._by_index[index] = Call(piece.id or "", function.name)
            self.all.append(call)
        call.pieces.append(added)
        return call, added


def whole_calls(calls: Iterable[ToolCall] | None) -> list[Call]:
    """Return the tool calls of a complete message.

    Raises:
        UpstreamInvalidError: A call does not name its tool.
    """
    return [Calls().add(call)[0] for call in calls or ()]


def usable(calls: Iterable[Call], finish_reason: str | None) -> list[tuple[Call, JsonObject]]:
    """Return calls with their decoded arguments, without one that the token limit cut short.

    Raises:
        UpstreamInvalidError: The arguments of a call are not a JSON object.
    """
    found = []
    for call in calls:
        try:
            found.append((call, call.arguments))
        except UpstreamInvalidError:
            if finish_reason != "length":
                raise
    return found


def tool_call(name: str, tool: str, arguments: JsonObject) -> dict[str, object]:
    """Return a tool call of an earlier message in OpenAI's form.

    Args:
        name: Id of the call.
        tool: Name of the tool.
        arguments: Its arguments.
    """
    return {
        "id": name,
        "type": "function",
        "function": {"name": tool, "arguments": encode(arguments).decode()},
    }
