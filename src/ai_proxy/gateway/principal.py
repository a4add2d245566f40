"""The caller of a request, as its head identifies them."""

from dataclasses import dataclass, field

from ai_proxy.core.keys import ApiKey, Scope, check_model, check_service
from ai_proxy.security.limiter import Meters, metered_address

ANONYMOUS = "anonymous"
"""The name of those without a key."""


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """Who calls.

    Attributes:
        name: The id of a key, or `anonymous`.
        address: Of the client.
        key: None for those without.
        key_id: Id of that key; empty without one.
        meters: What counts the requests; empty where nothing is limited.
        cors: Header lines on every response, for browsers that call from a web page.
        limited: Whether there are models that the caller may not ask; follows from `key`.
        counts_tokens: Whether there is a limit of tokens; follows from `meters`.
    """

    name: str = ANONYMOUS
    address: str = ""
    key: ApiKey | None = None
    meters: Meters = ()
    cors: bytes = b""
    key_id: str = field(init=False)
    limited: bool = field(init=False)
    counts_tokens: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_id", self.key.id if self.key is not None else "")
        limited = self.key is not None and bool(self.key.grant.models)
        object.__setattr__(self, "limited", limited)
        object.__setattr__(self, "counts_tokens", any(meter.limits_tokens for meter in self.meters))

    @property
    def client_id(self) -> str:
        """Identifies the caller where memory for bodies is counted: by key, else by address."""
        return self.key_id or metered_address(self.address)

    @property
    def reads_logs(self) -> bool:
        """Whether the caller may see the log lines of backends: a key needs the scope `admin` for that."""
        return self.key is None or Scope.ADMIN in self.key.grant.scopes

    def check_model(self, *names: str) -> None:
        """Refuse a model that the caller's key is not for.

        Args:
            names: By any of which it may be allowed.

        Raises:
            ForbiddenError: It is not.
        """
        if self.key is not None and self.limited:
            check_model(self.key, *names)

    def check_service(self, service_id: str) -> None:
        """Refuse a service that the caller's key is not for as a whole.

        Raises:
            ForbiddenError: It is not.
        """
        if self.key is not None and self.limited:
            check_service(self.key, service_id)


NOBODY = Principal()
"""The principal where no guard asks."""
