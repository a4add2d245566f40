"""The paths on which clients ask for models, and in which dialect they speak there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UnknownPathError
from ai_proxy.dialects import openai
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway.route import Destination, RoutingTable
from ai_proxy.gateway.wire import origin_form


class Dialect(Protocol):
    """How errors are told to a client; the modules of `dialects` are such."""

    def error_body(self, error: ProxyError, request_id: str) -> bytes:
        """Return the body of a response that tells of an error."""

    def error_event(self, error: ProxyError, request_id: str) -> bytes:
        """Return what tells of an error in a stream that has begun."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A path on which clients ask for models.

    Attributes:
        path: As clients ask for it.
        dialect: How errors are told there.
        endpoint: What an engine must answer for a request to be passed on as it is; None: it is `native`.
        native: The engine whose own dialect this is, and that takes such requests as they are.
        translate: Makes of a request, for other engines, one that they understand; None where nothing can.
        streams_unless_told: Whether a request that does not say so asks for a stream.
        heartbeat: Whether comments can be sent in a stream, so that a client hears of a load under way.
    """

    path: str
    dialect: Dialect = openai
    endpoint: Endpoint | None = None
    native: str = ""
    translate: Callable[[bytes], Translation] | None = None
    streams_unless_told: bool = False
    heartbeat: bool = True


@dataclass(frozen=True, slots=True)
class Front:
    """What one listener answers.

    Attributes:
        entries: By path.
        resolve: Finds the destination of every other target, and the target to ask of it.
    """

    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    resolve: Callable[[RoutingTable, bytes], tuple[Destination, bytes]] = RoutingTable.resolve

    def entry(self, target: bytes) -> Entry | None:
        """Return on which entry a request is; None for any other path."""
        entry = self.entries.get(target)
        if entry is None and not (target.startswith(b"/") and target.find(b"?") < 0):
            entry = self.entries.get(origin_form(target).partition(b"?")[0])
        return entry


OLLAMA_READING = frozenset({b"/api/tags", b"/api/show", b"/api/ps", b"/api/version"})
"""What the management app answers to Ollama's clients, under a prefix of its own."""


def resolve_ollama(table: RoutingTable, target: bytes) -> tuple[Destination, bytes]:
    """Find the destination of a request to the listener for Ollama's clients.

    Raises:
        UnknownPathError: Ollama has nothing there, or nothing that is possible here.
    """
    path = origin_form(target)
    name = path.partition(b"?")[0]
    if name in OLLAMA_READING or name == b"/":
        return table.management, b"/ollama" + path
    if name.startswith(b"/v1/"):
        return table.management, path
    raise UnknownPathError(
        "nothing answers on this path; this is ai-proxy in the place of Ollama: it chats, generates, embeds "
        "and lists models, and leaves pulling and creating them to the engines"
    )


def _openai() -> dict[bytes, Entry]:
    """Return the entries of OpenAI's API, and of Anthropic's."""
    entries = [Entry(endpoint, endpoint=endpoint) for endpoint in Endpoint]
    return {entry.path.encode(): entry for entry in entries}


OPENAI = Front(_openai())
"""Everything: services, the management API, models in OpenAI's and Anthropic's dialects."""

OLLAMA = Front(_openai(), resolve_ollama)
"""In the place of an Ollama server."""
