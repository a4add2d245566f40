"""Every error that the proxy answers itself, with its code and HTTP status.

ProxyError
├── RequestError                     the client's request cannot be served as it stands
│   ├── MalformedRequestError        400 malformed_request
│   ├── RequestTimeoutError          408 request_timeout
│   ├── BodyTooLargeError            413 body_too_large
│   ├── HeadTooLargeError            431 head_too_large
│   ├── UnknownPathError             404 unknown_path
│   ├── UnknownServiceError          404 unknown_service
│   ├── UnknownModelError            404 model_not_found
│   ├── InvalidRequestError          400 invalid_request: not what this endpoint takes
│   ├── UnsupportedParameterError    400 unsupported_parameter
│   ├── UnsupportedModalitiesError   422 unsupported_modalities
│   ├── MissingKeyError              401 missing_api_key
│   ├── InvalidKeyError              401 invalid_api_key
│   ├── ForbiddenError               403 forbidden: the key is not for this
│   │   ├── AddressRefusedError      403 address_refused
│   │   ├── HostRefusedError         403 host_refused
│   │   └── OriginRefusedError       403 origin_refused
│   ├── RateLimitedError             429 rate_limited
│   ├── UnknownKeyError              404 unknown_api_key: nothing to revoke or rotate
│   └── InvalidPolicyError           422 invalid_policy
├── UnsupportedEndpointError         501 not_supported_by_engine
├── UnavailableError                 the service cannot take the request now
│   ├── ServiceStoppedError          503 service_stopped
│   ├── ServiceFailedError           503 service_failed
│   ├── StartTimeoutError            503 start_timeout
│   ├── QueueFullError               503 queue_full
│   ├── OverloadedError              503 overloaded: too many connections
│   ├── ShuttingDownError            503 shutting_down
│   └── ManagementUnavailableError   503 management_unavailable
├── UpstreamError                    the backend did not answer as it should
│   ├── UpstreamConnectError         502 upstream_connect_failed
│   ├── UpstreamClosedError          502 upstream_closed
│   ├── UpstreamInvalidError         502 upstream_invalid_response
│   └── UpstreamTimeoutError         504 upstream_timeout
├── RuntimeFailureError              500 runtime_failure: a backend could not be started or stopped
│   └── RuntimeUnavailableError      503 runtime_unavailable: what runs it (the Docker daemon) is away
├── StoreError                       500 store_failed: what is kept cannot be read or written
│   ├── StoreUnavailableError        503 store_unavailable: locked, or its server is away
│   ├── StoreFullError               507 store_full
│   ├── StoreReadOnlyError           500 store_read_only
│   ├── StoreDamagedError            500 store_damaged
│   ├── StoreNewerError              500 store_newer: made by a newer version of this program
│   └── StoreMigrationError          500 store_migration_failed
└── InvalidConfigError               422 invalid_config
"""

from collections.abc import Sequence
from typing import ClassVar


class ProxyError(Exception):
    """An error of the proxy's own making, told to the client.

    Attributes:
        code: Stable name, sent in `X-AI-Proxy-Error`.
        status: HTTP status.
        title: The kind of error in a few words; the same for all errors of a code.
        retry_after: Seconds after which trying again may help; None when it will not.
        log_tail: The backend's last log lines, when they explain it.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str, *, retry_after: float | None = None, log_tail: Sequence[str] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.log_tail = tuple(log_tail)


class RequestError(ProxyError):
    """The client's request cannot be served as it stands."""


class MalformedRequestError(RequestError):
    """Not well-formed HTTP, or ambiguous enough to be dangerous."""

    code, status, title = "malformed_request", 400, "Malformed request"


class RequestTimeoutError(RequestError):
    """The client took too long to send its request."""

    code, status, title = "request_timeout", 408, "Request timeout"


class BodyTooLargeError(RequestError):
    """The body is over the limit for bodies that are kept in memory."""

    code, status, title = "body_too_large", 413, "Body too large"


class HeadTooLargeError(RequestError):
    """Request line and headers are over the limit, in size or in number."""

    code, status, title = "head_too_large", 431, "Request header fields too large"


class UnknownPathError(RequestError):
    """No part of the proxy answers on this path."""

    code, status, title = "unknown_path", 404, "Unknown path"


class UnknownServiceError(RequestError):
    """No service of that name is declared."""

    code, status, title = "unknown_service", 404, "Unknown service"

    def __init__(self, service_id: str, near: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        super().__init__(f"no service {service_id!r} is configured{hint}")
        self.near = tuple(near)


class UnknownModelError(RequestError):
    """No service answers to that name of a model, or several do."""

    code, status, title = "model_not_found", 404, "Model not found"

    def __init__(self, name: str, near: Sequence[str] = (), among: Sequence[str] = ()) -> None:
        shown = name[:200]
        if among:
            detail = f"several services have a model {shown!r}; say which one: {' or '.join(among)}"
        elif near:
            detail = f"there is no model {shown!r}; did you mean {' or '.join(repr(n) for n in near)}?"
        else:
            detail = f"there is no model {shown!r}; GET /v1/models lists what there is"
        super().__init__(detail)
        self.near = tuple(near)


class InvalidRequestError(RequestError):
    """Well-formed HTTP, but not what this endpoint takes.

    Attributes:
        param: The part of the body that is wrong; empty for all of it.
    """

    code, status, title = "invalid_request", 400, "Invalid request"

    def __init__(self, detail: str, param: str = "") -> None:
        super().__init__(detail)
        self.param = param


class UnsupportedParameterError(InvalidRequestError):
    """A parameter that the engine does not have, and that cannot be left out."""

    code, title = "unsupported_parameter", "Unsupported parameter"


class UnsupportedModalitiesError(InvalidRequestError):
    """Images or audio for a model that takes only text."""

    code, status, title = "unsupported_modalities", 422, "Unsupported modalities"


class MissingKeyError(RequestError):
    """No API key came with the request, and one is needed."""

    code, status, title = "missing_api_key", 401, "API key needed"

    def __init__(self) -> None:
        super().__init__("an API key is needed: send one as 'Authorization: Bearer aip_...'")


class InvalidKeyError(RequestError):
    """The API key is unknown, expired or revoked."""

    code, status, title = "invalid_api_key", 401, "Invalid API key"


class ForbiddenError(RequestError):
    """Who calls may not do this."""

    code, status, title = "forbidden", 403, "Forbidden"


class AddressRefusedError(ForbiddenError):
    """The policy's allowlist does not name the client's address."""

    code, title = "address_refused", "Address refused"


class HostRefusedError(ForbiddenError):
    """The request names a host that is not this machine: a web page may have had its own name point here."""

    code = "host_refused"


class OriginRefusedError(ForbiddenError):
    """The request comes from a web page that the policy does not let call."""

    code = "origin_refused"


class RateLimitedError(RequestError):
    """The client has used up what it may for now."""

    code, status, title = "rate_limited", 429, "Too many requests"


class UnknownKeyError(RequestError):
    """There is no API key of that id."""

    code, status, title = "unknown_api_key", 404, "Unknown API key"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"there is no API key {key_id[:100]!r}; 'ai-proxy api-keys list' shows those there are"
        )


class InvalidPolicyError(RequestError):
    """A policy has errors; each is one line of the detail."""

    code, status, title = "invalid_policy", 422, "Invalid policy"


class UnsupportedEndpointError(ProxyError):
    """The engine behind the model has nothing on this path."""

    code, status, title = "not_supported_by_engine", 501, "Not supported by the engine"


class UnavailableError(ProxyError):
    """The service cannot take the request now."""

    status: ClassVar[int] = 503


class ServiceStoppedError(UnavailableError):
    """Stopped by hand, or never started by itself."""

    code, title = "service_stopped", "Service stopped"


class ServiceFailedError(UnavailableError):
    """The last start failed or the backend crashed."""

    code, title = "service_failed", "Service failed"


class StartTimeoutError(UnavailableError):
    """The service did not become ready in time."""

    code, title = "start_timeout", "Start timeout"


class QueueFullError(UnavailableError):
    """Too many requests wait for the service already."""

    code, title = "queue_full", "Queue full"


class OverloadedError(UnavailableError):
    """The proxy has no room for another client."""

    code, title = "overloaded", "Overloaded"


class ShuttingDownError(UnavailableError):
    """The proxy is on its way out."""

    code, title = "shutting_down", "Shutting down"


class ManagementUnavailableError(UnavailableError):
    """The management application could not be built."""

    code, title = "management_unavailable", "Management API unavailable"


class UpstreamError(ProxyError):
    """The backend did not answer as it should."""

    status: ClassVar[int] = 502


class UpstreamConnectError(UpstreamError):
    """No connection to the backend could be made."""

    code, title = "upstream_connect_failed", "Backend unreachable"


class UpstreamClosedError(UpstreamError):
    """The backend closed the connection before it answered."""

    code, title = "upstream_closed", "Backend closed the connection"


class UpstreamInvalidError(UpstreamError):
    """What the backend answered is not HTTP."""

    code, title = "upstream_invalid_response", "Backend answered garbage"


class UpstreamTimeoutError(UpstreamError):
    """The backend took too long."""

    code, status, title = "upstream_timeout", 504, "Backend timeout"


class RuntimeFailureError(ProxyError):
    """A backend could not be started or stopped; the detail says why and what to do."""

    code, title = "runtime_failure", "Backend could not be run"


class RuntimeUnavailableError(RuntimeFailureError):
    """What runs the backend is away."""

    code, status, title = "runtime_unavailable", 503, "Runtime unavailable"


class StoreError(ProxyError):
    """What is kept on disk cannot be read or written; the detail says what to do."""

    code, title = "store_failed", "Store failed"


class StoreUnavailableError(StoreError):
    """Something else holds the store, or its server is away; later may be better."""

    code, status, title = "store_unavailable", 503, "Store unavailable"


class StoreFullError(StoreError):
    """There is no room left on the disk."""

    code, status, title = "store_full", 507, "Disk full"


class StoreReadOnlyError(StoreError):
    """The store may not be written."""

    code, title = "store_read_only", "Store is read-only"


class StoreDamagedError(StoreError):
    """The file is not, or no longer, a database."""

    code, title = "store_damaged", "Store is damaged"


class StoreNewerError(StoreError):
    """A newer version of this program made the store."""

    code, title = "store_newer", "Store is of a newer version"


class StoreMigrationError(StoreError):
    """The store could not be brought up to date, and is as it was."""

    code, title = "store_migration_failed", "Migration failed"


class InvalidConfigError(ProxyError):
    """The configuration has errors; each is one line of the detail."""

    code, status, title = "invalid_config", 422, "Invalid configuration"
