"""Every error in the form of the API that was asked: OpenAI's, Anthropic's, Ollama's, elsewhere a problem."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import (
    InvalidRequestError,
    ProxyError,
    RequestError,
    ServiceFailedError,
    StartTimeoutError,
    UnknownPathError,
)
from ai_proxy.core.http import PROBLEM, problem
from ai_proxy.dialects import anthropic, ollama, openai

OLLAMA = "/ollama"
"""Prefix under which the gateway asks for what Ollama's API has on its own listener."""

FORMS: dict[str, Callable[[ProxyError, str], bytes]] = {
    "/v1/messages": anthropic.error_body,
    "/v1": openai.error_body,
    OLLAMA: lambda error, _: ollama.error_body(error),
}
"""Renders the body of an error, by prefix of the path; the first prefix that fits counts."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

OPERATION_FAILED = 500
"""Status of a start that was asked for by hand and failed: unlike a request, it has nothing to wait for."""


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Always `about:blank`: `code` tells errors apart.")
    title: str = Field(description="The kind of error in a few words; the same for all errors of a code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong this time, and what to do.")
    code: str = Field(description="Stable name; also sent in the header `X-AI-Proxy-Error`.")
    request_id: str = Field(description="Names the request in the proxy's log.")
    retry_after: int | None = Field(None, description="Seconds after which trying again may help.")
    log_tail: list[str] | None = Field(None, description="The backend's last log lines, where they explain.")
    errors: list[str] | None = Field(None, description="One line for each part of the request that is wrong.")


class ApiError(BaseModel):
    """What went wrong, in the form of OpenAI's API."""

    message: str = Field(description="What went wrong this time, and what to do.")
    type: str = Field(description="The kind of error, as OpenAI's clients sort them.")
    code: str = Field(description="Stable name; also sent in the header `X-AI-Proxy-Error`.")
    param: str | None = Field(description="The part of the request that is wrong; null for all of it.")
    request_id: str = Field(description="Names the request in the proxy's log.")


class ApiErrorBody(BaseModel):
    """An error of the proxy's own under `/v1`; those of engines are passed on as they are."""

    error: ApiError


class MethodNotAllowedError(RequestError):
    """The path exists, but not with this method.

    Attributes:
        allowed: The methods that it has, as in the header `Allow`.
    """

    code, status, title = "method_not_allowed", 405, "Method not allowed"

    def __init__(self, request: Request) -> None:
        self.allowed = ", ".join(allowed_methods(request)) or "POST"  # the gateway's own endpoints take POST
        super().__init__(f"{request.method} is not possible on {request.url.path}; {self.allowed} is")


class InvalidParametersError(InvalidRequestError):
    """Parameters or body of a management request have errors.

    Attributes:
        lines: One for each part that is wrong.
    """

    status = 422

    def __init__(self, error: RequestValidationError) -> None:
        self.lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        super().__init__("; ".join(self.lines))


def install(app: FastAPI) -> None:
    """Make an application answer every error in the form of the API that was asked."""
    for kind in (ProxyError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)


def _answer(request: Request, error: Exception) -> Response:
    path, request_id = request.url.path, str(getattr(request.state, "request_id", ""))
    render = next((form for prefix, form in FORMS.items() if is_below(path, prefix)), None)
    ours = _proxy_error(request, error)
    headers = {"X-AI-Proxy-Error": ours.code}
    if isinstance(ours, MethodNotAllowedError):
        headers["Allow"] = ours.allowed
    if render is not None:
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            ours = InvalidRequestError(str(first["msg"]), ".".join(map(str, first["loc"][1:])))
        return Response(render(ours, request_id), ours.status, headers, "application/json")
    body, status = problem(ours, request_id), ours.status
    if isinstance(ours, ServiceFailedError | StartTimeoutError):
        body["status"] = status = OPERATION_FAILED
    if isinstance(ours, InvalidParametersError):
        body["errors"] = ours.lines
    if "retry_after" in body:
        headers["Retry-After"] = str(body["retry_after"])
    return JSONResponse(body, status, headers, PROBLEM)


def _proxy_error(request: Request, error: Exception) -> ProxyError:
    match error:
        case ProxyError():
            return error
        case RequestValidationError():
            return InvalidParametersError(error)
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            return MethodNotAllowedError(request)
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            if request.url.path in set(Endpoint):
                return MethodNotAllowedError(request)
            return UnknownPathError(f"nothing answers on {request.url.path}; GET /docs lists what does")
        case HTTPException():
            return InvalidRequestError(str(error.detail))
    return ProxyError("unexpected error; the proxy's log has the reason under this request id")


def allowed_methods(request: Request) -> list[str]:
    """Return the methods that are possible on a request's path; the router names those of one route only."""
    scope = {name: request.scope[name] for name in ("type", "path", "headers", "root_path")}
    return [
        method
        for method in METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.router.routes
        )
    ]


def is_below(path: str, prefix: str) -> bool:
    """Tell whether a path is a prefix, or below it.

    >>> is_below("/v1/models", "/v1"), is_below("/v1", "/v1"), is_below("/v10", "/v1")
    (True, True, False)
    """
    return path == prefix or path.startswith(f"{prefix}/")
