"""Whether a request may go on: decided from its head, before anything is done for it.

The decision is kept with the head, and holds until the keys or the policy change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ai_proxy.core.errors import (
    AddressRefusedError,
    BodyTooLargeError,
    ForbiddenError,
    HostRefusedError,
    InvalidKeyError,
    MissingKeyError,
    OriginRefusedError,
    ProxyError,
    RateLimitedError,
)
from ai_proxy.core.keys import ApiKey, Scope, check_scope, presented_keys
from ai_proxy.core.policy import (
    Headers,
    client_address,
    cors_headers,
    host_name,
    is_local_host,
    is_origin_allowed,
    is_own_page,
    preflight,
)
from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import MB, SecuritySettings
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.respond import LocalResponse
from ai_proxy.gateway.http.wire import Header, origin_form
from ai_proxy.gateway.principal import ANONYMOUS, NOBODY, Principal
from ai_proxy.security.security import Security

REFUSALS = (MissingKeyError, InvalidKeyError, ForbiddenError, RateLimitedError)
"""Errors that belong in the audit log."""

_READ = frozenset(
    {
        *(b"authorization", b"x-api-key", b"api-key", b"x-forwarded-for", b"host", b"origin"),
        *(b"access-control-request-method", b"access-control-request-headers"),
        *(b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"),
    }
)
"""Headers that the decision depends on."""

_OWN_SITES = ("", "none", "same-origin")
"""What a browser says of a request that no page of another origin has made (W3C, Fetch Metadata)."""

type Noted = Mapping[bytes, Sequence[bytes]]
"""The values of those headers, by their names in lower case."""


@dataclass(slots=True)
class Access:
    """What the guard decided about a head.

    Attributes:
        principal: Who calls.
        error: Why they may not go on; None when they may.
        max_body: Most bytes of the body that the policy allows; 0 for any number.
        backend_credentials: Whether the backend gets the service's own key, since none of the client's is
            forwarded.
        preflight: The answer to a browser that asks before it calls (Fetch standard); None for any other.
    """

    principal: Principal = NOBODY
    error: ProxyError | None = None
    max_body: int = 0
    backend_credentials: bool = False
    preflight: LocalResponse | None = None


class Guard(Protocol):
    """Decides about every request. A decision about a head holds until the guard reports a change."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever earlier decisions no longer hold."""

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:
        """Decide who calls and whether they may; drop our own keys from what is forwarded.

        Args:
            request: Already read.
            headers: All that came, in their order.
            peer: Address of the other end of the connection.
            scope: The scope that a key needs; None where no key is needed.
        """

    def refused(self, principal: Principal, request: Request, error: ProxyError) -> None:
        """Take note of a request that is answered with an error."""

    def seen(self, principal: Principal) -> None:
        """Take note that a head that was inspected before has come again, once or more often."""

    def is_good(self, principal: Principal) -> bool:
        """Return whether a request that was begun may go on."""

    def sweep(self) -> None:
        """Look after what ends by itself, such as keys that expire; called about once a second."""


class OpenGuard:
    """Lets everybody in: the guard of a gateway that was given no other."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:  # noqa: ARG002
        """Let the request go on."""
        return Access()

    def refused(self, principal: Principal, request: Request, error: ProxyError) -> None:
        """Do nothing."""

    def seen(self, principal: Principal) -> None:
        """Do nothing."""

    def is_good(self, principal: Principal) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def sweep(self) -> None:
        """Do nothing."""


class ClosedGuard(OpenGuard):
    """Refuses everything that needs a key, since keys cannot be checked.

    Args:
        error: Says why.
    """

    def __init__(self, error: ProxyError) -> None:
        self._error = error

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:  # noqa: ARG002
        """Refuse the request."""
        return Access(error=self._error if scope is not None else None)


class KeyGuard:
    """Lets in those whom the policy and the keys allow.

    Args:
        security: Keys, policy, limits and audit.
        settings: What holds while there is no key.
        clock: Tells the time.
        exposed: Whether other machines can reach the listeners.
    """

    def __init__(
        self, security: Security, settings: SecuritySettings, clock: Clock, *, exposed: bool
    ) -> None:
        self._security = security
        self._settings = settings
        self._clock = clock
        self._exposed = exposed
        self._changed: Callable[[], None] = _nothing
        self._swept = clock.wall()
        security.keys.listen(self._renew)
        security.policy.listen(lambda _: self._renew())

    @property
    def asks_for_keys(self) -> bool:
        """Whether a key is needed."""
        open_to_all = self._settings.allow_unauthenticated or not self._exposed
        return self._security.keys.has_keys or not open_to_all

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines can use the proxy without a key."""
        return self._exposed and not self.asks_for_keys

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever earlier decisions no longer hold."""
        self._changed = changed

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:
        """Decide in this order: allowlist, size, preflight, key, and what the key is for."""
        security = self._security
        noted = _noted(headers)
        policy = security.policy.current
        forwarded = [value.decode("latin-1") for value in noted.get(b"x-forwarded-for", ())]
        address = client_address(peer, forwarded, policy.trusted_proxies)
        access = Access(Principal(ANONYMOUS, address))
        try:
            if not security.policy.permits(address):
                raise AddressRefusedError(f"the policy's allowlist does not name {address}")
            cors = b""
            if policy.cors.origins:
                cors = _lines(cors_headers(policy.cors, _value(noted, b"origin")))
            meters = security.limiter.meters(None, address)
            access.principal = Principal(ANONYMOUS, address, meters=meters, cors=cors)
            if request.method == b"TRACE":
                raise ForbiddenError("TRACE is refused: it shows what the proxy adds for a backend")
            access.max_body = policy.max_request_mb * MB
            if 0 < access.max_body < request.length:
                raise BodyTooLargeError(f"the policy allows requests of at most {policy.max_request_mb} MB")
            access.preflight = self._preflight(request, noted)
            if access.preflight is None:
                self._identify(access, request, noted, scope)
        except ProxyError as error:
            access.error = error
        return access

    def _preflight(self, request: Request, noted: Noted) -> LocalResponse | None:
        """Answer a browser that asks before it calls, where the policy says anything about that.

        Raises:
            OriginRefusedError: The policy does not allow the call.
        """
        cors, wanted = self._security.policy.current.cors, _value(noted, b"access-control-request-method")
        origin = _value(noted, b"origin")
        if request.method != b"OPTIONS" or not (wanted and origin and cors.origins):
            return None
        if request.has_body or request.upgrade:
            return None  # no browser asks so
        answer = preflight(cors, origin, wanted, _value(noted, b"access-control-request-headers"))
        if not answer.allowed:
            raise OriginRefusedError(answer.reason)
        return LocalResponse(204, _lines(answer.headers))

    def _identify(self, access: Access, request: Request, noted: Noted, scope: Scope | None) -> None:
        """Find the key that a request came with, and check what it is for."""
        security = self._security
        if not self.asks_for_keys:
            self._check_page(noted)
            return
        presented = presented_keys((name, value) for name, values in noted.items() for value in values)
        if not presented:
            if scope is not None:
                raise MissingKeyError
            return
        if len({one.key for one in presented}) > 1:
            raise InvalidKeyError("two different API keys came with this request; send one")
        key = security.keys.verify(presented[0].key, self._clock.wall())
        request.drop({one.header for one in presented})
        access.backend_credentials = not request.header(b"authorization")
        before = access.principal
        meters = security.limiter.meters(key, before.address)
        access.principal = Principal(key.id, before.address, key, meters, before.cors)
        if scope is not None:
            check_scope(key, scope)

    def _check_page(self, noted: Noted) -> None:
        """Refuse what a web page asks by itself: that it runs on its visitor's machine proves nothing.

        Raises:
            HostRefusedError: The name in the request may have been pointed here by the page.
            OriginRefusedError: The page is of another origin, which the policy does not name.
        """
        host, origin = _value(noted, b"host"), _value(noted, b"origin")
        if not self._exposed and host and not self._is_known(host):
            raise HostRefusedError(
                f"{host[:100]!r} is not this machine; if it is, name it in security.hosts, or make an API key"
            )
        if origin:
            cors = self._security.policy.current.cors
            allowed = is_origin_allowed(cors, origin) or is_own_page(origin, host)
        else:
            allowed = _value(noted, b"sec-fetch-site") in _OWN_SITES or _follows_link(noted)
        if not allowed:
            who = repr(origin[:100]) if origin else "another site"
            raise OriginRefusedError(f"the policy's cors.origins does not name {who}")

    def _is_known(self, host: str) -> bool:
        return is_local_host(host) or host_name(host) in self._settings.hosts

    def refused(self, principal: Principal, request: Request, error: ProxyError) -> None:
        """Write a refusal to the audit log."""
        if isinstance(error, REFUSALS):
            path = origin_form(request.target).partition(b"?")[0]
            what = b"%b %b" % (request.method, path)
            self._security.audit.refuse(
                principal.name, what.decode("latin-1"), principal.address, error.code, error.detail
            )

    def seen(self, principal: Principal) -> None:
        """Note that a key was used again."""
        if principal.key is not None:
            self._security.keys.note_use(principal.key, self._clock.wall())

    def is_good(self, principal: Principal) -> bool:
        """Return whether the key that a request came with is not revoked; an expiry ends no request."""
        return principal.key is None or self._security.keys.is_in_force(principal.key.id)

    def sweep(self) -> None:
        """Report a change when a key has expired since the last sweep."""
        since, self._swept = self._swept, self._clock.wall()
        if any(_expires_within(key, since, self._swept) for key in self._security.keys.all()):
            self._renew()

    def _renew(self) -> None:
        self._changed()


def _nothing() -> None:
    """Do nothing."""


def _expires_within(key: ApiKey, since: float, until: float) -> bool:
    return key.expires is not None and since < key.expires <= until


def _noted(headers: Sequence[Header]) -> dict[bytes, list[bytes]]:
    noted: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        key = name.lower()
        if key in _READ:
            noted.setdefault(key, []).append(value)
    return noted


def _value(noted: Noted, name: bytes) -> str:
    """Return a header's value; empty without one. Several make a list (RFC 9110 section 5.3)."""
    return b", ".join(noted.get(name, ())).decode("latin-1")


def _follows_link(noted: Noted) -> bool:
    """Return whether a browser follows a link, and does not load a frame of another page."""
    navigates = _value(noted, b"sec-fetch-mode") == "navigate"
    return navigates and _value(noted, b"sec-fetch-dest") in ("", "document")


def _lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1", "replace")
