"""The paths on which clients ask for models, the dialect of each, and what each kind of listener answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UnknownPathError
from ai_proxy.core.keys import Scope
from ai_proxy.core.ports import Clock
from ai_proxy.dialects import anthropic, ollama, openai
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.respond import LocalResponse
from ai_proxy.gateway.http.wire import Header, origin_form
from ai_proxy.gateway.routing.table import Destination, RoutingTable, is_management


@dataclass(frozen=True, slots=True)
class Dialect:
    """How errors are written for a client.

    Attributes:
        body: Makes the body of an error response, given the id of the request.
        event: Makes the event that ends a stream with an error.
    """

    body: Callable[[ProxyError, str], bytes]
    event: Callable[[ProxyError, str], bytes]


OPENAI_ERRORS = Dialect(openai.error_body, openai.error_event)
ANTHROPIC_ERRORS = Dialect(anthropic.error_body, anthropic.error_event)
OLLAMA_ERRORS = Dialect(
    lambda error, _: ollama.error_body(error), lambda error, _: ollama.error_body(error) + b"\n"
)

type Translate = Callable[[bytes, str, Clock], Translation]
"""Makes a translation of a body, given the id of the request and a clock for the moments in the answer."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelEndpoint:
    """A path on which clients ask for models.

    Attributes:
        path: As clients ask for it.
        dialect: How errors are written there.
        native: The engine whose own dialect this is, and that takes such requests as they are.
        translate: Turns a request into one that other engines understand; None where nothing can.
        unload: Returns what to unload when a request asks for nothing else; None where none does.
        streams_by_default: Whether a request without `stream` asks for a stream.
        heartbeat: Whether comments can be sent in a stream while the model loads.
    """

    path: str
    dialect: Dialect = OPENAI_ERRORS
    native: str = ""
    translate: Translate | None = None
    unload: Callable[[str, bytes, Clock], ollama.Unload | None] | None = None
    streams_by_default: bool = False
    heartbeat: bool = True


PUBLIC = frozenset({b"/health", b"/ready"})
"""Paths that need no key."""


def scope_of(target: bytes) -> Scope | None:
    """Return the scope that a key needs for a target; None where no key is needed.

    >>> scope_of(b"/v1/models"), scope_of(b"/service/x/api/v1"), scope_of(b"/ready?x=1")
    (<Scope.INFERENCE: 'inference'>, <Scope.INFERENCE: 'inference'>, None)
    >>> scope_of(b"http://gpu/api/v1/keys"), scope_of(b"/metrics"), scope_of(b"/health/../api/v1/keys")
    (<Scope.ADMIN: 'admin'>, <Scope.ADMIN: 'admin'>, <Scope.ADMIN: 'admin'>)
    """
    path = origin_form(target)
    name = path.partition(b"?")[0]
    if name in PUBLIC:
        return None
    models = name == b"/v1" or name.startswith(b"/v1/")
    return Scope.ADMIN if is_management(path) and not models else Scope.INFERENCE


@dataclass(frozen=True, slots=True)
class Frontend:
    """What one listener answers.

    Attributes:
        endpoints: By path.
        resolve: Finds the destination of every other target, and the target to ask of it.
        scope: Returns the scope that a key needs for a target; None where no key is needed.
        errors: How errors are written outside of the APIs; None for problems (RFC 9457).
        answer: Answers every request from its head and headers; None where requests go to a destination.
        lines: Header lines on every response, each with its line end.
    """

    endpoints: Mapping[bytes, ModelEndpoint] = field(default_factory=dict)
    resolve: Callable[[RoutingTable, bytes], tuple[Destination, bytes]] = RoutingTable.resolve
    scope: Callable[[bytes], Scope | None] = scope_of
    errors: Dialect | None = None
    answer: Callable[[Request, list[Header]], LocalResponse] | None = None
    lines: bytes = b""

    def endpoint(self, target: bytes) -> ModelEndpoint | None:
        """Return the endpoint that a target names; None for any other path."""
        endpoint = self.endpoints.get(target)
        if endpoint is None and not (target.startswith(b"/") and target.find(b"?") < 0):
            endpoint = self.endpoints.get(origin_form(target).partition(b"?")[0])
        return endpoint

    def dialect(self, target: bytes) -> Dialect | None:
        """Return how errors are written for a target, whatever the method; None for a problem."""
        endpoint = self.endpoint(target)
        if endpoint is not None:
            return endpoint.dialect
        return OPENAI_ERRORS if origin_form(target).startswith(b"/v1/") else self.errors


OLLAMA_QUERIES = frozenset({b"/api/tags", b"/api/show", b"/api/ps", b"/api/version"})
"""What the management app answers to Ollama's clients, under a prefix of its own."""


def resolve_ollama(table: RoutingTable, target: bytes) -> tuple[Destination, bytes]:
    """Find the destination of a request to the listener for Ollama's clients.

    Raises:
        UnknownPathError: Ollama has nothing there, or nothing that is possible here.
    """
    path = origin_form(target)
    name = path.partition(b"?")[0]
    if name in OLLAMA_QUERIES or name == b"/":
        return table.management, b"/ollama" + path
    if name.startswith(b"/v1/"):
        return table.management, path
    raise UnknownPathError(
        "nothing answers on this path; this is ai-proxy in the place of Ollama: it chats, generates, embeds "
        "and lists models, and leaves pulling and creating them to the engines"
    )


def _openai() -> dict[bytes, ModelEndpoint]:
    """Return the endpoints of OpenAI's API, and of Anthropic's."""
    endpoints = {path: ModelEndpoint(path.value) for path in Endpoint}
    endpoints[Endpoint.MESSAGES] = ModelEndpoint(
        Endpoint.MESSAGES.value,
        ANTHROPIC_ERRORS,
        translate=lambda body, request_id, _: anthropic.translate(body, request_id),
    )
    endpoints[Endpoint.COUNT_TOKENS] = ModelEndpoint(Endpoint.COUNT_TOKENS.value, ANTHROPIC_ERRORS)
    return {endpoint.path.encode(): endpoint for endpoint in endpoints.values()}


def _ollama() -> dict[bytes, ModelEndpoint]:
    """Return the endpoints of Ollama's own API, where chats are streamed unless the client says otherwise."""
    chats: dict[str, Translate] = {
        "/api/chat": lambda body, _, clock: ollama.chat(body, clock),
        "/api/generate": lambda body, _, clock: ollama.generate(body, clock),
    }
    embeddings: dict[str, Translate] = {
        "/api/embed": lambda body, _, clock: ollama.embed(body, clock),
        "/api/embeddings": lambda body, *_: ollama.embeddings(body),
    }
    return {
        path.encode(): ModelEndpoint(
            path,
            OLLAMA_ERRORS,
            native="ollama",
            translate=translate,
            unload=ollama.unload if path in chats else None,
            streams_by_default=path in chats,
            heartbeat=False,
        )
        for path, translate in (chats | embeddings).items()
    }


OPENAI = Frontend(_openai())
"""Everything: services, the management API, models in OpenAI's and Anthropic's dialects."""

OLLAMA = Frontend(_openai() | _ollama(), resolve_ollama, lambda _: Scope.INFERENCE, OLLAMA_ERRORS)
"""In the place of an Ollama server."""
