"""The paths on which clients ask for models, and in which dialect they speak there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UnknownPathError
from ai_proxy.core.keys import Scope
from ai_proxy.core.ports import Clock
from ai_proxy.dialects import anthropic, ollama, openai
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway.route import Destination, RoutingTable, is_management
from ai_proxy.gateway.wire import origin_form


@dataclass(frozen=True, slots=True)
class Dialect:
    """How errors are told to a client.

    Attributes:
        body: Makes the body of a response that tells of an error, with the id of the request.
        event: Makes what tells of an error in a stream that has begun.
    """

    body: Callable[[ProxyError, str], bytes]
    event: Callable[[ProxyError, str], bytes]


OPENAI_ERRORS = Dialect(openai.error_body, openai.error_event)
ANTHROPIC_ERRORS = Dialect(anthropic.error_body, anthropic.error_event)
OLLAMA_ERRORS = Dialect(
    lambda error, _: ollama.error_body(error), lambda error, _: ollama.error_body(error) + b"\n"
)


OPEN = frozenset({b"/health", b"/ready"})
"""Paths that whoever looks after the proxy may ask for without a key."""


type Translate = Callable[[bytes, str, Clock], Translation]
"""Makes a translation of a body, the id of the request, and a clock for the moments in the answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A path on which clients ask for models.

    Attributes:
        path: As clients ask for it.
        dialect: How errors are told there.
        endpoint: What an engine must answer for a request to be passed on as it is; None: it is `native`.
        native: The engine whose own dialect this is, and that takes such requests as they are.
        unload: Tells whether a request only unloads the model; None where none does.
        translate: Makes of a request, for other engines, one that they understand; None where nothing can.
        streams_unless_told: Whether a request that does not say so asks for a stream.
        heartbeat: Whether comments can be sent in a stream, so that a client hears of a load under way.
    """

    path: str
    dialect: Dialect = OPENAI_ERRORS
    endpoint: Endpoint | None = None
    native: str = ""
    translate: Translate | None = None
    unload: Callable[[str, bytes, Clock], ollama.Unload | None] | None = None
    streams_unless_told: bool = False
    heartbeat: bool = True


def scope_of(target: bytes) -> Scope | None:
    """Return what a key has to be good for to ask for a target; None where none is needed.

    >>> scope_of(b"/v1/models"), scope_of(b"/service/x/api/v1"), scope_of(b"/ready?x=1")
    (<Scope.INFERENCE: 'inference'>, <Scope.INFERENCE: 'inference'>, None)
    >>> scope_of(b"http://gpu/api/v1/keys"), scope_of(b"/metrics"), scope_of(b"/health/../api/v1/keys")
    (<Scope.ADMIN: 'admin'>, <Scope.ADMIN: 'admin'>, <Scope.ADMIN: 'admin'>)
    """
    path = origin_form(target)
    name = path.partition(b"?")[0]
    if name in OPEN:
        return None
    models = name == b"/v1" or name.startswith(b"/v1/")
    return Scope.ADMIN if is_management(path) and not models else Scope.INFERENCE


@dataclass(frozen=True, slots=True)
class Front:
    """What one listener answers.

    Attributes:
        entries: By path.
        resolve: Finds the destination of every other target, and the target to ask of it.
        scope: Tells what a key has to be good for to ask for a target; None: everybody may.
        errors: How they are told where no API of somebody else's is spoken; None for as problems (RFC 9457).
    """

    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    resolve: Callable[[RoutingTable, bytes], tuple[Destination, bytes]] = RoutingTable.resolve
    scope: Callable[[bytes], Scope | None] = scope_of
    errors: Dialect | None = None

    def entry(self, target: bytes) -> Entry | None:
        """Return on which entry a request is; None for any other path."""
        entry = self.entries.get(target)
        if entry is None and not (target.startswith(b"/") and target.find(b"?") < 0):
            entry = self.entries.get(origin_form(target).partition(b"?")[0])
        return entry


def dialect_of(front: Front, target: bytes) -> Dialect | None:
    """Return how an error is told about a request to a target, whatever its method; None for as a problem."""
    entry = front.entry(target)
    if entry is not None:
        return entry.dialect
    return OPENAI_ERRORS if origin_form(target).startswith(b"/v1/") else front.errors


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
    anthropics = {
        Endpoint.MESSAGES: Entry(
            Endpoint.MESSAGES.value,
            ANTHROPIC_ERRORS,
            Endpoint.MESSAGES,
            translate=lambda body, request_id, _: anthropic.translate(body, request_id),
        ),
        Endpoint.COUNT_TOKENS: Entry(Endpoint.COUNT_TOKENS.value, ANTHROPIC_ERRORS, Endpoint.COUNT_TOKENS),
    }
    entries = [anthropics.get(endpoint) or Entry(endpoint.value, endpoint=endpoint) for endpoint in Endpoint]
    return {entry.path.encode(): entry for entry in entries}


def _ollama() -> dict[bytes, Entry]:
    """Return the entries of Ollama's own API, where chats are streamed unless the client says otherwise."""
    chats: dict[str, Translate] = {
        "/api/chat": lambda body, _, clock: ollama.chat(body, clock),
        "/api/generate": lambda body, _, clock: ollama.generate(body, clock),
    }
    embeddings: dict[str, Translate] = {
        "/api/embed": lambda body, _, clock: ollama.embed(body, clock),
        "/api/embeddings": lambda body, *_: ollama.embeddings(body),
    }
    return {
        path.encode(): Entry(
            path,
            OLLAMA_ERRORS,
            native="ollama",
            translate=translate,
            unload=ollama.unload if path in chats else None,
            streams_unless_told=path in chats,
            heartbeat=False,
        )
        for path, translate in (chats | embeddings).items()
    }


OPENAI = Front(_openai())
"""Everything: services, the management API, models in OpenAI's and Anthropic's dialects."""

OLLAMA = Front(_openai() | _ollama(), resolve_ollama, lambda _: Scope.INFERENCE, OLLAMA_ERRORS)
"""In the place of an Ollama server."""
