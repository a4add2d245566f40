"""Every error in the form that the caller's API has: OpenAI's, Anthropic's, Ollama's, problems elsewhere."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ai_proxy.api import problems
from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import InvalidRequestError, ProxyError, RequestError, UnknownPathError
from ai_proxy.dialects import anthropic, ollama, openai

OLLAMA = "/ollama"
"""Prefix under which the gateway asks for what Ollama's API has on its own listener."""

FORMS: dict[str, Callable[[ProxyError, str], bytes]] = {
    "/v1/messages": anthropic.error_body,
    "/v1": openai.error_body,
    OLLAMA: lambda error, _: ollama.error_body(error),
}
"""How the body of an error is written, by the beginning of the path; the first that fits."""


class ApiError(BaseModel):
    """What went wrong, as OpenAI's API tells it."""

    message: str = Field(description="What went wrong this time, and what to do.")
    type: str = Field(description="The kind of error, as OpenAI's clients sort them.")
    code: str = Field(description="Stable name; also sent in the header `X-AI-Proxy-Error`.")
    param: str | None = Field(description="The part of the request that is wrong; null for all of it.")
    request_id: str = Field(description="Names the request in the proxy's log.")


class ApiErrorBody(BaseModel):
    """An error of the proxy's own under `/v1`; those of engines are passed on as they are."""

    error: ApiError


class MethodNotAllowedError(RequestError):
    """The path is right, the method is not."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


def install(app: FastAPI) -> None:
    """Make an application answer every error in the form of the API that was asked."""
    for kind, problem in problems.HANDLERS.items():
        app.add_exception_handler(kind, _by_path(problem))


def _by_path(problem: Callable[[Request, Exception], Response]) -> Callable[[Request, Exception], Response]:
    """Return a handler that answers as the API asked for does, by default with a problem."""

    def handle(request: Request, error: Exception) -> Response:
        path = request.url.path
        render = next((form for prefix, form in FORMS.items() if is_below(path, prefix)), None)
        if render is None:
            return problem(request, error)
        told, request_id = _as_proxy_error(request, error), str(getattr(request.state, "request_id", ""))
        return _response(render(told, request_id), told, error)

    return handle


def is_below(path: str, prefix: str) -> bool:
    """Tell whether a path is a prefix, or below it.

    >>> is_below("/v1/models", "/v1"), is_below("/v1", "/v1"), is_below("/v10", "/v1")
    (True, True, False)
    """
    return path == prefix or path.startswith(f"{prefix}/")


def _as_proxy_error(request: Request, error: Exception) -> ProxyError:
    path = request.url.path
    match error:
        case ProxyError():
            return error
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            return MethodNotAllowedError(f"{request.method} is not possible on {path}; {_allowed(error)} is")
        case HTTPException(status_code=HTTPStatus.NOT_FOUND) if path in set(Endpoint):
            return MethodNotAllowedError(f"{request.method} is not possible on {path}; POST is")
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return UnknownPathError(f"nothing answers on {path}; GET /docs lists what does")
        case HTTPException():
            return InvalidRequestError(str(error.detail))
        case RequestValidationError():
            first = error.errors()[0]
            return InvalidRequestError(str(first["msg"]), ".".join(map(str, first["loc"][1:])))
    return ProxyError("an unexpected error; the proxy's log tells more under the request id")


def _allowed(error: HTTPException) -> str:
    return (error.headers or {}).get("Allow", "POST")


def _response(body: bytes, told: ProxyError, error: Exception) -> Response:
    headers = {"X-AI-Proxy-Error": told.code}
    if isinstance(told, MethodNotAllowedError):
        headers["Allow"] = _allowed(error) if isinstance(error, HTTPException) else "POST"
    return Response(body, told.status, headers, "application/json")
