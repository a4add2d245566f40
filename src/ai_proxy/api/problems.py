"""Every error of the management API, as RFC 9457 problem details."""

from collections.abc import Callable
from http import HTTPStatus
from math import ceil

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ai_proxy.core.errors import ProxyError, ServiceFailedError, StartTimeoutError, UnknownPathError

MEDIA_TYPE = "application/problem+json"

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


def members(error: ProxyError, request_id: str) -> dict[str, object]:
    """Return the members of the problem that an error makes."""
    problem = {**_basics(error.status, error.title, error.detail, error.code), "request_id": request_id}
    if error.retry_after is not None:
        problem["retry_after"] = ceil(error.retry_after)
    if error.log_tail:
        problem["log_tail"] = list(error.log_tail)
    return problem


def _basics(status: int, title: str, detail: str, code: str) -> dict[str, object]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}


def _response(problem: dict[str, object], status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        {**problem, "status": status},
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**(headers or {}), "X-AI-Proxy-Error": str(problem["code"])},
    )


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def _proxy_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProxyError)  # noqa: S101 - registered for this type only
    problem = members(error, _request_id(request))
    failed = isinstance(error, ServiceFailedError | StartTimeoutError)
    headers = {"Retry-After": str(problem["retry_after"])} if "retry_after" in problem else {}
    return _response(problem, OPERATION_FAILED if failed else error.status, headers)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"nothing answers on {request.url.path}; GET /docs lists what does"
        return _response(members(UnknownPathError(detail), _request_id(request)), error.status_code)
    title = HTTPStatus(error.status_code).phrase
    detail, code, headers = error.detail, title.lower().replace(" ", "_"), dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allowed_methods(request))
        detail = f"{request.method} is not possible on {request.url.path}; {headers['Allow']} is"
    problem = {**_basics(error.status_code, title, detail, code), "request_id": _request_id(request)}
    return _response(problem, error.status_code, headers)


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


def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    problem = _basics(422, "Invalid request", "; ".join(lines), "invalid_request")
    return _response({**problem, "request_id": _request_id(request), "errors": lines}, 422)


def _unexpected(request: Request, _: Exception) -> JSONResponse:
    detail = "an unexpected error; the proxy's log tells more under the request id"
    return _response(members(ProxyError(detail), _request_id(request)), 500)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    ProxyError: _proxy_error,
    HTTPException: _http_error,
    RequestValidationError: _invalid_request,
    Exception: _unexpected,
}
"""Make a problem of an error, by its type."""
