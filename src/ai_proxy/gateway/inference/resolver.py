"""Finds the model that a request names, and fits the request to the model's engine."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UnsupportedEndpointError
from ai_proxy.core.keys import redacted
from ai_proxy.core.ports import Clock
from ai_proxy.core.routing import MAX_NAME
from ai_proxy.dialects.ollama import Unload, strip_latest
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway.inference import prompt as prompts
from ai_proxy.gateway.inference.form import FormBody
from ai_proxy.gateway.inference.usage_filter import UsageFilter
from ai_proxy.gateway.principal import Principal
from ai_proxy.gateway.routing.endpoints import ModelEndpoint
from ai_proxy.gateway.routing.table import ModelDestination, RoutingTable

type Payload = bytes | bytearray

COMPLETIONS = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS})
"""Paths on which engines report the usage of a stream only when asked to."""


class Context(Protocol):
    """What resolving a request takes beside the request.

    Attributes:
        table: The routes in force.
        clock: Tells the time.
    """

    table: RoutingTable
    clock: Clock


class Resolver(Protocol):
    """Finds the model of one request.

    Attributes:
        endpoint: The path that was asked.
        model: As the client named it; empty until it is known.
        streaming: Whether the client wants a stream.
        found: The model; None until it is known.
        path: To ask the engine on.
        translation: Of the request and its answer; None where both are passed on as they are.
        warnings: For the client, about what was changed.
        unload: The answer to a request that only unloads the model; None for any other.
        beginning: What of the body comes before the payload.
        growth: By how many bytes the body has grown.
    """

    endpoint: ModelEndpoint
    model: str
    streaming: bool
    found: ModelDestination | None
    path: bytes
    translation: Translation | None
    warnings: tuple[str, ...]
    unload: Unload | None
    beginning: bytes
    growth: int

    def resolve(self, context: Context, payload: Payload, request_id: Callable[[], bytes]) -> Payload:
        """Find the model, and fit the request to its engine.

        Args:
            context: The routes in force.
            payload: What is held of the body.
            request_id: Returns the id of the request.

        Returns:
            What to send of the body.

        Raises:
            ProxyError: The request cannot be served.
        """

    def resolve_again(
        self, context: Context, payload: Payload, request_id: Callable[[], bytes]
    ) -> Payload | None:
        """Do so once more after a wait, if anything has changed: a running engine reports what it can do.

        A model that has moved to another service meanwhile is still asked of the one that was waited for.

        Args:
            context: The routes in force.
            payload: What `resolve` was given.
            request_id: Returns the id of the request.

        Returns:
            What to send of the body; None to send what was to be sent before.

        Raises:
            ProxyError: The request cannot be served any more.
        """


class PromptResolver(msgspec.Struct, gc=False, eq=False):
    """Finds the model of a request whose body is JSON; attributes as in `Resolver`, and two more.

    Attributes:
        principal: Who asks.
        asked: The path that was asked, with its query.
    """

    endpoint: ModelEndpoint
    principal: Principal
    asked: bytes
    path: bytes
    streaming: bool
    model: str = ""
    found: ModelDestination | None = None
    translation: Translation | None = None
    warnings: tuple[str, ...] = ()
    unload: Unload | None = None
    beginning: bytes = b""
    growth: int = 0

    def resolve(self, context: Context, payload: Payload, request_id: Callable[[], bytes]) -> Payload:
        """Read just the model's name where the request can be passed on as it is, else all of it."""
        table = context.table
        if len(payload) > prompts.LARGE:
            return self._resolve_fully(context, payload, request_id)
        try:
            model, streaming = table.read_plain(payload)
        except prompts.UNREADABLE:
            return self._resolve_fully(context, payload, request_id)
        found = table.by_model.get(model)
        if (
            found is None
            or self.endpoint.path not in found.unchanged
            or (found.text_only and prompts.may_have_parts(payload))
            or (streaming and self.principal.counts_tokens)
        ):
            return self._resolve_fully(context, payload, request_id)
        if self.principal.limited:
            self.principal.check_model(*found.route.names)
        self.model = found.route.name
        if streaming is not self.streaming:  # to change it takes longer than to look
            self.streaming = streaming
        self.found = found
        return payload

    def resolve_again(
        self, context: Context, payload: Payload, request_id: Callable[[], bytes]
    ) -> Payload | None:
        """Resolve the original body again if the model's route is another by now."""
        if not _has_moved(context.table, self.endpoint, self.found, self.model):
            return None
        self.path, self.translation, self.warnings = self.asked, None, ()
        return self.resolve(context, payload, request_id)

    def _resolve_fully(self, context: Context, body: Payload, request_id: Callable[[], bytes]) -> Payload:
        endpoint = self.endpoint
        prompts.check_one_model(body)
        if len(body) > prompts.LARGE:
            prompts.check_members(body)
        if endpoint.unload is not None:
            unload = endpoint.unload(endpoint.path, bytes(body), context.clock)
            if unload is not None:
                self._find(context.table, unload.model)
                self.unload = unload
                return body
        prompt = prompts.read(body, streams_by_default=endpoint.streams_by_default)
        self.streaming = prompt.streamed
        found = self._find(context.table, prompt.model)
        engine = found.route.offer.service.engine
        if endpoint.path not in found.understood and endpoint.native != engine:
            self.translation = translation = _translate(
                endpoint, found, self.model, body, request_id(), context.clock
            )
            self.path = translation.path.encode()
            self.streaming = translation.streamed
            body, translation.request = translation.request, b""  # it need not last as long as the answer
            prompt = prompts.read(body)
        prompts.check_modalities(body, prompt, found.route)
        filters_usage = self._counts_usage and prompts.ask_for_usage(prompt)
        fitted, self.warnings = prompts.fit(prompt, found.route)
        if filters_usage:
            fitted = fitted or prompts.encode(prompt)
            self.translation = UsageFilter(endpoint.path, request_id().decode())
        return body if fitted is None else fitted

    @property
    def _counts_usage(self) -> bool:
        """Whether the tokens of a stream are limited, and its engine reports them only when asked to."""
        passed_on = self.streaming and self.translation is None
        return passed_on and self.principal.counts_tokens and self.endpoint.path in COMPLETIONS

    def _find(self, table: RoutingTable, model: str) -> ModelDestination:
        self.model = redacted(model[:MAX_NAME])
        self.found = found = _look_up(table, self.endpoint, model)
        self.principal.check_model(*found.route.names)
        return found


class FormResolver:
    """Finds the model of a request whose body is a form; attributes as in `Resolver`.

    Args:
        endpoint: The path that was asked.
        principal: Who asks.
        path: To ask the engine on.
        form: The body.
    """

    def __init__(self, endpoint: ModelEndpoint, principal: Principal, path: bytes, form: FormBody) -> None:
        self.endpoint = endpoint
        self.model = ""
        self.streaming = False
        self.found: ModelDestination | None = None
        self.path = path
        self.translation: Translation | None = None
        self.warnings: tuple[str, ...] = ()
        self.unload: Unload | None = None
        self.beginning = b""
        self.growth = 0
        self._principal = principal
        self._form = form

    def resolve(self, context: Context, payload: Payload, request_id: Callable[[], bytes]) -> Payload:  # noqa: ARG002
        """Find the model, and put the engine's own name of it into the form."""
        self.model = redacted(self._form.model[:MAX_NAME])
        self.found = found = _look_up(context.table, self.endpoint, self._form.model)
        self._principal.check_model(*found.route.names)
        if self.endpoint.path not in found.understood:
            raise _unsupported(self.endpoint, found, self.model)
        self.beginning, self.growth = self._form.beginning(found.route.target)
        return payload

    def resolve_again(
        self, context: Context, payload: Payload, request_id: Callable[[], bytes]
    ) -> Payload | None:
        """Rename the model again if its route is another by now; what came of the form meanwhile stays."""
        if _has_moved(context.table, self.endpoint, self.found, self.model):
            self.resolve(context, payload, request_id)
        return None


def _look_up(table: RoutingTable, endpoint: ModelEndpoint, model: str) -> ModelDestination:
    found = table.by_model.get(model)
    return found or table.find(strip_latest(model) if endpoint.native == "ollama" else model)


def _has_moved(
    table: RoutingTable, endpoint: ModelEndpoint, found: ModelDestination | None, model: str
) -> bool:
    """Return whether a model's service tells other things about it than when it was found.

    Raises:
        UnknownModelError: The model is gone.
    """
    again = _look_up(table, endpoint, found.route.name if found is not None else model)
    return found is None or (
        again.route is not found.route and again.destination.service_id == found.destination.service_id
    )


def _translate(
    endpoint: ModelEndpoint,
    found: ModelDestination,
    model: str,
    body: Payload,
    request_id: bytes,
    clock: Clock,
) -> Translation:
    """Turn a request into one that the engine understands.

    Raises:
        UnsupportedEndpointError: Nothing can, or the engine lacks the endpoint of the translation.
    """
    if endpoint.translate is None:
        raise _unsupported(endpoint, found, model)
    translation = endpoint.translate(bytes(body), request_id.decode(), clock)
    if Endpoint(translation.path) not in found.route.offer.abilities.endpoints:
        raise _unsupported(endpoint, found, model)
    return translation


def _unsupported(endpoint: ModelEndpoint, found: ModelDestination, model: str) -> UnsupportedEndpointError:
    title = found.route.offer.abilities.title
    return UnsupportedEndpointError(f"{title}, which answers for {model!r}, has no {endpoint.path}")
