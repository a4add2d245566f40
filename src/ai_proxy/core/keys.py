"""API keys: their form, their rights and their validity.

A key is `aip_<id>_<secret><checksum>`. The id names it in lists, logs and audits and is not secret; the
secret has 256 bits, so a fast hash suffices; the checksum lets a scanner recognise a leaked key offline.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import unquote

from ai_proxy.core.errors import ForbiddenError, InvalidKeyError, InvalidRequestError
from ai_proxy.core.limits import MAX_LIMIT, UNSAID, Allowance

PREFIX = b"aip_"
ID_BYTES, SECRET_BYTES, PEPPER_BYTES = 6, 32, 32
RANDOM_BYTES = ID_BYTES + SECRET_BYTES
"""Random bytes in a key."""
MAX_PRESENTED = 256
"""Longest value that is looked up as a key, in bytes."""

MAX_LABEL, MAX_MODEL = 100, 200
"""Longest label and name of a model, in characters."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_WIDTH, _CHECKSUM_WIDTH = 43, 6
_KEY_IN_TEXT = re.compile(r"aip_([0-9a-f]{12})_\w+")
_SHAPE = re.compile(rb"aip_([0-9a-f]{12})_[0-9A-Za-z]{49}")


class Scope(StrEnum):
    """What a key is for."""

    INFERENCE = "inference"
    """Using models and `/service`."""
    ADMIN = "admin"
    """Managing the proxy."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a key may do.

    Attributes:
        label: Label for display.
        scopes: What the key is for.
        models: Models it may use, as names or patterns such as `llama*`; empty for all.
        allowance: Rate limits; the policy sets those that it leaves open.
    """

    label: str
    scopes: frozenset[Scope] = frozenset({Scope.INFERENCE})
    models: frozenset[str] = frozenset()
    allowance: Allowance = UNSAID


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The facts about a key, without the key itself. Times are in seconds since the epoch.

    Attributes:
        id: Its id.
        digest: The result of `key_digest`.
        grant: What it allows.
        created: When it was created.
        expires: When it stops being valid; None for never.
        revoked: When it was revoked; None if it was not.
        rotated_from: Id of the key it replaced; empty for none.
        last_used: Time of its last use, to within a batch; None for never.
    """

    id: str
    digest: bytes = field(repr=False)
    grant: Grant
    created: float
    expires: float | None = None
    revoked: float | None = None
    rotated_from: str = ""
    last_used: float | None = None


@dataclass(frozen=True, slots=True)
class PlainKey:
    """A key as its holder has it; exists only while it is created and shown.

    Attributes:
        id: Its id.
        text: The key itself.
    """

    id: str
    text: str = field(repr=False)


def plain_key(randomness: bytes) -> PlainKey:
    """Make a key of RANDOM_BYTES random bytes.

    >>> plain_key(bytes(38)).text
    'aip_000000000000_00000000000000000000000000000000000000000002qIpjV'
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not of {len(randomness)}")
    key_id = randomness[:ID_BYTES].hex()
    text = f"aip_{key_id}_{_base62(int.from_bytes(randomness[ID_BYTES:]), _SECRET_WIDTH)}"
    return PlainKey(key_id, text + _checksum(text.encode()))


def key_id(presented: bytes) -> str:
    """Return the id in a complete key; empty for anything else.

    >>> key_id(plain_key(bytes(38)).text.encode()), key_id(b"aip_mistyped")
    ('000000000000', '')
    """
    match = _SHAPE.fullmatch(presented)
    if match is None or _checksum(presented[:-_CHECKSUM_WIDTH]).encode() != presented[-_CHECKSUM_WIDTH:]:
        return ""
    return match[1].decode()


def redacted(text: str) -> str:
    """Return a text with the secrets of keys removed, those that are percent-encoded among them.

    >>> redacted("GET /api/aip_0123456789ab_Secret"), redacted("GET /%61ip%5F0123456789ab%5fSecret")
    ('GET /api/aip_0123456789ab_...', 'GET /aip_0123456789ab_...')
    """
    if "%" in text and _KEY_IN_TEXT.search(decoded := unquote(text)):
        text = decoded
    return _KEY_IN_TEXT.sub(r"aip_\1_...", text)


def key_digest(pepper: bytes, presented: bytes) -> bytes:
    """Return the digest that identifies a key: SHA-256 over a secret of this installation and the key.

    The pepper comes first and has a fixed length, so no two pairs concatenate to the same bytes. With the
    store alone, a thief cannot even test a guess.
    """
    return hashlib.sha256(pepper + presented).digest()


@dataclass(frozen=True, slots=True)
class Presented:
    """A key in a request.

    Attributes:
        key: The key as sent.
        header: Lower-case name of its header, which is never forwarded.
    """

    key: bytes = field(repr=False)
    header: bytes


def presented_keys(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Presented, ...]:
    """Return the proxy's keys in the headers that may hold one; usually one or none.

    Any other value in such a header is for the backend and is ignored.

    Args:
        headers: Pairs of lower-case name and value.

    >>> presented_keys([(b"authorization", b"Bearer aip_1"), (b"x-api-key", b"sk-for-the-backend")])[0].header
    b'authorization'
    """
    found = ((name, presented_key(name, value)) for name, value in headers)
    return tuple(Presented(key, name) for name, key in found if key)


def presented_key(name: bytes, value: bytes) -> bytes:
    r"""Return the proxy's key in one header; empty when it holds none.

    >>> presented_key(b"authorization", b"bearer \t aip_1"), presented_key(b"cookie", b"aip_1")
    (b'aip_1', b'')
    """
    if name == b"authorization":
        words = value.split(None, 1)
        if len(words) < 2 or words[0].lower() != b"bearer":
            return b""
        value = words[1]
    elif name not in (b"x-api-key", b"api-key"):
        return b""
    value = value.strip()
    return value if value.startswith(PREFIX) else b""


def rotate(
    key: ApiKey, fresh_id: str, fresh_digest: bytes, now: float, overlap: float
) -> tuple[ApiKey, ApiKey]:
    """Return a key with its new expiry, and the key that replaces it.

    Args:
        key: The key to replace.
        fresh_id: Id of the new key.
        fresh_digest: Digest of the new key.
        now: Seconds since the epoch.
        overlap: Seconds for which both are valid.
    """
    ends = now + overlap
    old = replace(key, expires=ends if key.expires is None else min(key.expires, ends))
    return old, ApiKey(fresh_id, fresh_digest, key.grant, now, key.expires, rotated_from=key.id)


def check_grant(grant: Grant) -> None:
    """Refuse a grant that is not valid.

    Raises:
        InvalidRequestError: A field is missing, too long or out of range.
    """
    if not 1 <= len(grant.label) <= MAX_LABEL or not grant.label.isprintable():
        raise InvalidRequestError(f"a label has 1 to {MAX_LABEL} printable characters", "label")
    if not grant.scopes:
        raise InvalidRequestError(f"a key needs a scope: {' or '.join(Scope)}", "scopes")
    for model in grant.models:
        if not 1 <= len(model) <= MAX_MODEL or not model.isprintable():
            raise InvalidRequestError(f"a model has 1 to {MAX_MODEL} printable characters", "models")
    for name, value in asdict(grant.allowance).items():
        if value is not None and not 0 <= value <= MAX_LIMIT:
            raise InvalidRequestError(f"{name} must be between 0 and {MAX_LIMIT}, not {value}", name)


def check_valid(key: ApiKey, now: float) -> None:
    """Refuse a key that is revoked or expired.

    Raises:
        InvalidKeyError: It was revoked, or has expired.
    """
    if key.revoked is not None:
        raise InvalidKeyError(f"the API key {key.id} was revoked; ask for another")
    if key.expires is not None and now >= key.expires:
        raise InvalidKeyError(f"the API key {key.id} has expired; ask for another")


def check_scope(key: ApiKey, scope: Scope) -> None:
    """Refuse a key that lacks a scope.

    Raises:
        ForbiddenError: It lacks the scope.
    """
    if scope not in key.grant.scopes:
        has = ", ".join(sorted(key.grant.scopes))
        raise ForbiddenError(f"this request needs an API key with the scope {scope!s}; {key.id} has {has}")


def check_model(key: ApiKey, *names: str) -> None:
    """Refuse a model that the key does not allow.

    Args:
        key: The key.
        names: Names of the model; the key may allow any of them.

    Raises:
        ForbiddenError: The key allows none of them.
    """
    if not allows_model(key, *names):
        raise _not_for(key, names[0])


def allows_model(key: ApiKey, *names: str) -> bool:
    """Return whether a key allows a model by any of its names."""
    allowed = key.grant.models
    if not allowed or any(name in allowed for name in names):
        return True
    return any(matches(name, pattern) for name in names for pattern in allowed)


def check_service(key: ApiKey, service_id: str) -> None:
    """Refuse a service as a whole unless the key names it or all of its models.

    A pattern without a slash matches models only, even if a service has a matching name.

    Args:
        key: The key.
        service_id: Id of the service.

    Raises:
        ForbiddenError: The key does not allow the whole service.
    """
    allowed = key.grant.models
    if allowed and service_id not in allowed and not any(matches(f"{service_id}/", p) for p in allowed):
        raise _not_for(key, service_id)


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches a name; without a slash, only `*` matches names with one.

    Otherwise `llama*` would allow every model of a service with such a name.

    >>> matches("llama3", "llama*"), matches("llama-box/qwen", "llama*"), matches("box/org/qwen", "box/*")
    (True, False, True)
    """
    return pattern == "*" or (("/" in pattern or "/" not in name) and fnmatchcase(name, pattern))


def _not_for(key: ApiKey, name: str) -> ForbiddenError:
    listed = ", ".join(sorted(key.grant.models))
    return ForbiddenError(f"the API key {key.id} does not allow {name[:200]!r}; it allows {listed}")


def _checksum(text: bytes) -> str:
    return _base62(zlib.crc32(text), _CHECKSUM_WIDTH)


def _base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
