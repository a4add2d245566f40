"""Every error that the proxy itself answers, with its HTTP status and its code.

ProxyError
├── RequestError                     the request must change before it can be served
│   ├── MalformedRequestError        400 malformed_request
│   ├── RequestTimeoutError          408 request_timeout
│   ├── BodyTooLargeError            413 body_too_large
│   ├── HeadTooLargeError            431 head_too_large
│   ├── UnknownPathError             404 unknown_path
│   ├── UnknownServiceError          404 unknown_service
│   ├── UnknownModelError            404 model_not_found
│   ├── InvalidRequestError          400 invalid_request: the endpoint does not accept it
│   ├── UnsupportedParameterError    400 unsupported_parameter
│   ├── UnsupportedModalitiesError   422 unsupported_modalities
│   ├── MissingKeyError              401 missing_api_key
│   ├── InvalidKeyError              401 invalid_api_key
│   ├── ForbiddenError               403 forbidden: the key does not allow it
│   │   ├── AddressRefusedError      403 address_refused
│   │   ├── HostRefusedError         403 host_refused
│   │   └── OriginRefusedError       403 origin_refused
│   ├── RateLimitedError             429 rate_limited
│   ├── UnknownKeyError              404 unknown_api_key: nothing to revoke or rotate
│   └── InvalidPolicyError           422 invalid_policy
├── UnsupportedEndpointError         501 not_supported_by_engine
├── UnavailableError                 the proxy cannot serve the request now
│   ├── ServiceStoppedError          503 service_stopped
│   ├── ServiceFailedError           503 service_failed
│   ├── StartTimeoutError            503 start_timeout
│   ├── QueueFullError               503 queue_full
│   ├── OverloadedError              503 overloaded: too many connections, or bodies in memory
│   ├── ShuttingDownError            503 shutting_down
│   └── ManagementUnavailableError   503 management_unavailable
├── UpstreamError                    the backend failed
│   ├── UpstreamConnectError         502 upstream_connect_failed
│   ├── UpstreamClosedError          502 upstream_closed
│   ├── UpstreamInvalidError         502 upstream_invalid_response
│   └── UpstreamTimeoutError         504 upstream_timeout
├── RuntimeFailureError              500 runtime_failure: a backend cannot be started or stopped
│   └── RuntimeUnavailableError      503 runtime_unavailable: the Docker daemon does not answer
├── StoreError                       500 store_failed: the store cannot be read or written
│   ├── StoreUnavailableError        503 store_unavailable: locked, or its server does not answer
│   ├── StoreFullError               507 store_full
│   ├── StoreReadOnlyError           500 store_read_only
│   ├── StoreDamagedError            500 store_damaged
│   ├── StoreNewerError              500 store_newer: written by a newer version of ai-proxy
│   └── StoreMigrationError          500 store_migration_failed
└── InvalidConfigError               422 invalid_config
"""

from collections.abc import Sequence
from copy import copy
from typing import ClassVar


class ProxyError(Exception):
    """An error that the proxy answers to its client.

    Attributes:
        code: Stable name, sent in `X-AI-Proxy-Error`.
        status: HTTP status.
        title: Short description, the same for every error with this code.
        retry_after: Seconds after which a retry may succeed; None when none will.
        log_tail: The backend's last log lines, when they explain the error; not for every client.
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

    def without_log(self) -> "ProxyError":
        """Return this error without the backend's log lines."""
        if not self.log_tail:
            return self
        error = copy(self)
        error.log_tail = ()
        return error


class RequestError(ProxyError):
    """The request must change before it can be served."""


class MalformedRequestError(RequestError):
    """The request is not valid HTTP, or dangerously ambiguous."""

    code, status, title = "malformed_request", 400, "Malformed request"


class RequestTimeoutError(RequestError):
    """The client did not send its request in time."""

    code, status, title = "request_timeout", 408, "Request timeout"


class BodyTooLargeError(RequestError):
    """The body exceeds the size limit."""

    code, status, title = "body_too_large", 413, "Body too large"


class HeadTooLargeError(RequestError):
    """The request line and headers exceed the limits on size or number."""

    code, status, title = "head_too_large", 431, "Request header fields too large"


class UnknownPathError(RequestError):
    """Nothing is served on this path."""

    code, status, title = "unknown_path", 404, "Unknown path"


class UnknownServiceError(RequestError):
    """No service has this name."""

    code, status, title = "unknown_service", 404, "Unknown service"

    def __init__(self, service_id: str, near: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        super().__init__(f"no service {service_id!r} is configured{hint}")
        self.near = tuple(near)


class UnknownModelError(RequestError):
    """No service offers this model, or several do."""

    code, status, title = "model_not_found", 404, "Model not found"

    def __init__(self, name: str, near: Sequence[str] = (), among: Sequence[str] = ()) -> None:
        shown = name[:200]
        if among:
            detail = f"several services have a model {shown!r}; choose one: {' or '.join(among)}"
        elif near:
            detail = f"there is no model {shown!r}; did you mean {' or '.join(repr(n) for n in near)}?"
        else:
            detail = f"there is no model {shown!r}; GET /v1/models lists the models"
        super().__init__(detail)
        self.near = tuple(near)


class InvalidRequestError(RequestError):
    """The request is valid HTTP, but the endpoint does not accept it.

    Attributes:
        param: The parameter that is wrong; empty when the whole body is.
    """

    code, status, title = "invalid_request", 400, "Invalid request"

    def __init__(self, detail: str, param: str = "") -> None:
        super().__init__(detail)
        self.param = param


class UnsupportedParameterError(InvalidRequestError):
    """The engine lacks a parameter that cannot be dropped."""

    code, title = "unsupported_parameter", "Unsupported parameter"


class UnsupportedModalitiesError(InvalidRequestError):
    """The request has images or audio, but the model accepts only text."""

    code, status, title = "unsupported_modalities", 422, "Unsupported modalities"


class MissingKeyError(RequestError):
    """The request needs an API key and has none."""

    code, status, title = "missing_api_key", 401, "API key required"

    def __init__(self) -> None:
        super().__init__("an API key is required: send one as 'Authorization: Bearer aip_...'")


class InvalidKeyError(RequestError):
    """The API key is unknown, expired or revoked."""

    code, status, title = "invalid_api_key", 401, "Invalid API key"


class ForbiddenError(RequestError):
    """The caller may not do this."""

    code, status, title = "forbidden", 403, "Forbidden"


class AddressRefusedError(ForbiddenError):
    """The policy's allowlist does not contain the client's address."""

    code, title = "address_refused", "Address refused"


class HostRefusedError(ForbiddenError):
    """The Host header does not name this machine, as in a DNS rebinding attack."""

    code = "host_refused"


class OriginRefusedError(ForbiddenError):
    """The policy does not allow requests from this web page."""

    code = "origin_refused"


class RateLimitedError(RequestError):
    """The client exceeds its rate limit."""

    code, status, title = "rate_limited", 429, "Too many requests"


class UnknownKeyError(RequestError):
    """No API key has this id."""

    code, status, title = "unknown_api_key", 404, "Unknown API key"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id[:100]!r}; 'ai-proxy api-keys list' shows the keys")


class InvalidPolicyError(RequestError):
    """A policy has errors; the detail has one line for each."""

    code, status, title = "invalid_policy", 422, "Invalid policy"


class UnsupportedEndpointError(ProxyError):
    """The engine that serves the model lacks this endpoint."""

    code, status, title = "not_supported_by_engine", 501, "Not supported by the engine"


class UnavailableError(ProxyError):
    """The proxy cannot serve the request now."""

    status: ClassVar[int] = 503


class ServiceStoppedError(UnavailableError):
    """The service was stopped by hand, or must be started by hand."""

    code, title = "service_stopped", "Service stopped"


class ServiceFailedError(UnavailableError):
    """The last start failed or the backend crashed."""

    code, title = "service_failed", "Service failed"


class StartTimeoutError(UnavailableError):
    """The service did not become ready in time."""

    code, title = "start_timeout", "Start timeout"


class QueueFullError(UnavailableError):
    """Too many requests already wait for the service."""

    code, title = "queue_full", "Queue full"


class OverloadedError(UnavailableError):
    """The proxy has too many connections, or too many requests in memory."""

    code, title = "overloaded", "Overloaded"


class ShuttingDownError(UnavailableError):
    """The proxy is shutting down."""

    code, title = "shutting_down", "Shutting down"


class ManagementUnavailableError(UnavailableError):
    """The management application could not be built."""

    code, title = "management_unavailable", "Management API unavailable"


class UpstreamError(ProxyError):
    """The backend failed."""

    status: ClassVar[int] = 502


class UpstreamConnectError(UpstreamError):
    """The proxy cannot connect to the backend."""

    code, title = "upstream_connect_failed", "Backend unreachable"


class UpstreamClosedError(UpstreamError):
    """The backend closed the connection before it answered."""

    code, title = "upstream_closed", "Backend closed the connection"


class UpstreamInvalidError(UpstreamError):
    """The backend sent an invalid response."""

    code, title = "upstream_invalid_response", "Invalid response from the backend"


class UpstreamTimeoutError(UpstreamError):
    """The backend did not answer in time."""

    code, status, title = "upstream_timeout", 504, "Backend timeout"


class RuntimeFailureError(ProxyError):
    """A backend cannot be started or stopped; the detail says why and what to do."""

    code, title = "runtime_failure", "Cannot run the backend"


class RuntimeUnavailableError(RuntimeFailureError):
    """The runtime does not answer, such as a stopped Docker daemon."""

    code, status, title = "runtime_unavailable", 503, "Runtime unavailable"


class StoreError(ProxyError):
    """The store cannot be read or written; the detail says what to do."""

    code, title = "store_failed", "Store failed"


class StoreUnavailableError(StoreError):
    """Another process has locked the store, or its server does not answer; a retry may succeed."""

    code, status, title = "store_unavailable", 503, "Store unavailable"


class StoreFullError(StoreError):
    """The disk is full."""

    code, status, title = "store_full", 507, "Disk full"


class StoreReadOnlyError(StoreError):
    """The store cannot be written."""

    code, title = "store_read_only", "Store is read-only"


class StoreDamagedError(StoreError):
    """The file is not a valid database."""

    code, title = "store_damaged", "Store is damaged"


class StoreNewerError(StoreError):
    """A newer version of ai-proxy wrote the store."""

    code, title = "store_newer", "Store from a newer version"


class StoreMigrationError(StoreError):
    """The migration failed and left the store unchanged."""

    code, title = "store_migration_failed", "Migration failed"


class InvalidConfigError(ProxyError):
    """The configuration has errors; the detail has one line for each."""

    code, status, title = "invalid_config", 422, "Invalid configuration"
