"""What plain HTTP gets beside TLS: the same address over https, and answers to an authority's challenges."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from ai_proxy.core.errors import MalformedRequestError
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.respond import LocalResponse
from ai_proxy.gateway.http.wire import Header
from ai_proxy.gateway.routing.endpoints import Frontend

CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""Where an authority looks for the answer to a challenge of type HTTP-01 (RFC 8555, section 8.3)."""
_TARGET = re.compile(r"(?:https?://([^/?#]*))?(.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")


def redirect_to(https_port: int, challenges: Mapping[str, bytes]) -> Frontend:
    """Return a frontend that answers every request from its head.

    Args:
        https_port: Where clients are sent.
        challenges: Answers to an authority's challenges, by token.
    """
    return Frontend(answer=lambda request, headers: answer(request, headers, https_port, challenges))


def answer(
    request: Request, headers: list[Header], https_port: int, challenges: Mapping[str, bytes]
) -> LocalResponse:
    """Answer a request.

    Args:
        request: The head.
        headers: All headers that came.
        https_port: Where the client is sent.
        challenges: Answers to an authority's challenges, by token.

    Raises:
        MalformedRequestError: The request does not say which host it is for.

    >>> answer(Request(b"GET", b"/x?y=1"), [(b"Host", b"gpu.example.com:80")], 443, {}).lines.split()[:2]
    [b'location:', b'https://gpu.example.com/x?y=1']
    """
    parsed = _TARGET.fullmatch(request.target.decode("latin-1"))
    authority, target = parsed.groups() if parsed is not None else (None, "")
    if authority is None:
        authority = next((value.decode("latin-1") for name, value in headers if name.lower() == b"host"), "")
    elif not target.startswith("/"):
        target = f"/{target}"  # the authority of the target counts, whatever Host says (RFC 9112, 3.2.2)
    host = _AUTHORITY.fullmatch(authority)
    if host is None or not target.startswith("/") or not re.fullmatch(r"[!-~]+", target):
        raise MalformedRequestError("the request must name a host and a path")
    if target.startswith(CHALLENGE_PATH):
        if request.method not in (b"GET", b"HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        found = challenges.get(target.removeprefix(CHALLENGE_PATH))
        if found is None:
            return _plain(HTTPStatus.NOT_FOUND)
        return LocalResponse(HTTPStatus.OK, b"content-type: application/octet-stream\r\n", found)
    port = "" if https_port == 443 else f":{https_port}"
    return _plain(HTTPStatus.PERMANENT_REDIRECT, f"location: https://{host[1]}{port}{target}\r\n")


def _plain(status: HTTPStatus, lines: str = "") -> LocalResponse:
    lines += "content-type: text/plain\r\ncache-control: no-store\r\n"
    return LocalResponse(status, lines.encode(), f"{status.phrase}\n".encode())
