"""The policy as a JSON document: its schema, reading, writing and validation."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from ipaddress import IPv4Network, ip_network

from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.limits import MAX_LIMIT, Allowance
from ai_proxy.core.policy import ANY, EXPOSED, METHODS, ORIGIN, Cors, Network, Policy
from ai_proxy.core.routing import near_names

type Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
type Schema = Mapping[str, Json]


def _texts(description: str, pattern: str, default: Sequence[str] = ()) -> Schema:
    items: Schema = {"type": "string", "pattern": pattern}
    return {"type": "array", "items": items, "description": description, "default": list(default)}


def _number(description: str, default: int | None = 0) -> Schema:
    return {
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_LIMIT,
        "description": description,
        "default": default,
    }


def _object(description: str, properties: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
    }


def _allowance(description: str) -> Schema:
    return _object(
        description,
        {
            "rpm": _number("Requests per minute; 0 for no limit."),
            "burst": _number("Requests at once; 0 for a minute's worth."),
            "tpm": _number("Tokens per minute, of prompts and answers together; 0 for no limit."),
            "concurrency": _number("Requests in flight; 0 for no limit."),
        },
    )


_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
_MAPPED_BITS = 96
"""Of an IPv6 address before the IPv4 address within it (RFC 4291 section 2.5.5.2)."""
_NETWORK = r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"

POLICY_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Policy of ai-proxy",
    **_object(
        "Who may call from where, and how much.",
        {
            "allowlist": _texts("Addresses and networks (CIDR) that may call; empty for all.", _NETWORK),
            "cors": _object(
                "Which web pages of other origins may call.",
                {
                    "origins": _texts("As sent: https://chat.example.com; * for all.", r"^\S+$"),
                    "methods": _texts("Methods they may use.", _NAME, METHODS),
                    "headers": _texts("Headers they may send; * for all.", _NAME, (ANY,)),
                    "expose": _texts("Response headers they may read.", _NAME, EXPOSED),
                    "credentials": {
                        "type": "boolean",
                        "description": "Whether browsers may add cookies and their own logins; not with *.",
                        "default": False,
                    },
                    "max_age": _number("Seconds for which a browser remembers the answer.", 600),
                },
            ),
            "per_key": _allowance("Limits of a key, where it sets none of its own."),
            "per_ip": _allowance("Limits of an address."),
            "trusted_proxies": _texts("Networks whose X-Forwarded-For is believed.", _NETWORK),
            "max_request_mb": _number("Largest body of a request, in MB; 0 for no limit."),
        },
    ),
}
"""JSON Schema of a policy."""


def parse_policy(document: object) -> Policy:
    """Read a policy; what it leaves out has its default.

    Raises:
        InvalidPolicyError: One line for each violation.

    >>> parse_policy({"allowlist": ["10.0.0.0/8"]}).allowlist
    (IPv4Network('10.0.0.0/8'),)
    """
    wrong = list(violations(document, POLICY_SCHEMA))
    if wrong or not isinstance(document, Mapping):
        raise InvalidPolicyError("\n".join(wrong))
    problems: list[str] = []
    policy = Policy(
        allowlist=_networks(document, "allowlist", problems),
        cors=_cors(_part(document, "cors"), problems),
        per_key=_read_allowance(_part(document, "per_key")),
        per_ip=_read_allowance(_part(document, "per_ip")),
        trusted_proxies=_networks(document, "trusted_proxies", problems),
        max_request_mb=_whole(document, "max_request_mb", 0),
    )
    if problems:
        raise InvalidPolicyError("\n".join(problems))
    return policy


def policy_document(policy: Policy) -> dict[str, Json]:
    """Write a policy, in full.

    >>> parse_policy(policy_document(Policy())) == Policy()
    True
    """
    cors = policy.cors
    return {
        "allowlist": [str(network) for network in policy.allowlist],
        "cors": {
            "origins": list(cors.origins),
            "methods": list(cors.methods),
            "headers": list(cors.headers),
            "expose": list(cors.expose),
            "credentials": cors.credentials,
            "max_age": cors.max_age,
        },
        "per_key": _write_allowance(policy.per_key),
        "per_ip": _write_allowance(policy.per_ip),
        "trusted_proxies": [str(network) for network in policy.trusted_proxies],
        "max_request_mb": policy.max_request_mb,
    }


def violations(value: object, schema: Schema, path: str = "") -> Iterator[str]:
    """Yield the violations of a schema, for the keywords of JSON Schema that are used here."""
    kind = schema["type"]
    if not _is_of(value, kind):
        yield f"{path or 'the policy'}: must be {_KINDS[str(kind)]}, not {_shown(value)}"
    elif isinstance(value, Mapping):
        yield from _wrong_members(value, schema, path)
    elif isinstance(value, str):
        if not re.fullmatch(str(schema["pattern"]), value):
            yield f"{path}: {_shown(value)} is not of the right form ({schema['pattern']})"
    elif isinstance(value, Sequence):
        items = schema["items"]
        assert isinstance(items, Mapping)  # noqa: S101 - by our own schema
        for index, item in enumerate(value):
            yield from violations(item, items, f"{path}[{index}]")
    elif kind == "integer" and isinstance(value, int):
        yield from _out_of_range(value, schema, path)


_KINDS = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
}


def _is_of(value: object, kind: Json) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types = {"object": Mapping, "array": list | tuple, "string": str, "integer": int}
    return kind in types and isinstance(value, types[str(kind)])


def _wrong_members(value: Mapping[str, object], schema: Schema, path: str) -> Iterator[str]:
    properties = schema["properties"]
    assert isinstance(properties, Mapping)  # noqa: S101 - by our own schema
    for name, member in value.items():
        inner = properties.get(name)
        where = f"{path}.{name}" if path else name
        if isinstance(inner, Mapping):
            yield from violations(member, inner, where)
        else:
            near = near_names(name, properties)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(properties)}"
            yield f"{where[:200]}: unknown; {known}"


def _out_of_range(value: int, schema: Schema, path: str) -> Iterator[str]:
    low, high = schema["minimum"], schema["maximum"]
    assert isinstance(low, int)  # noqa: S101 - by our own schema
    assert isinstance(high, int)  # noqa: S101 - likewise
    if not low <= value <= high:
        yield f"{path}: must be between {low} and {high}, not {value}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _part(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = document.get(name)
    return part if isinstance(part, Mapping) else {}


def _list(document: Mapping[str, object], name: str, default: Sequence[str] = ()) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else tuple(default)


def _whole(document: Mapping[str, object], name: str, default: int) -> int:
    value = document.get(name)
    return value if isinstance(value, int) else default


def _networks(document: Mapping[str, object], name: str, problems: list[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for index, text in enumerate(_list(document, name)):
        try:
            found.append(_plain_network(ip_network(text)))
        except ValueError as error:
            problems.append(f"{name}[{index}]: {error}; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")
    return tuple(found)


def _plain_network(network: Network) -> Network:
    """Return a network as clients are seen: IPv4 within IPv6 is IPv4.

    >>> _plain_network(ip_network("::ffff:10.0.0.0/104")), _plain_network(ip_network("::/0"))
    (IPv4Network('10.0.0.0/8'), IPv6Network('::/0'))
    """
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _cors(document: Mapping[str, object], problems: list[str]) -> Cors:
    plain = Cors()
    origins = tuple(origin.lower() for origin in _list(document, "origins"))
    problems += [
        f"cors.origins[{index}]: {_shown(origin)} is not an origin; write it as https://chat.example.com"
        for index, origin in enumerate(origins)
        if origin != ANY and not ORIGIN.fullmatch(origin)
    ]
    credentials = document.get("credentials", False) is True
    if credentials and ANY in origins:
        problems.append("cors.credentials: not with the origin *; name those that may use logins")
    return Cors(
        origins=origins,
        methods=tuple(method.upper() for method in _list(document, "methods", plain.methods)),
        headers=tuple(header.lower() for header in _list(document, "headers", plain.headers)),
        expose=_list(document, "expose", plain.expose),
        credentials=credentials,
        max_age=_whole(document, "max_age", plain.max_age),
    )


def _read_allowance(document: Mapping[str, object]) -> Allowance:
    values = {f.name: document.get(f.name) for f in fields(Allowance)}
    return Allowance(**{name: value for name, value in values.items() if isinstance(value, int)})


def _write_allowance(allowance: Allowance) -> dict[str, Json]:
    values = {f.name: getattr(allowance, f.name) for f in fields(allowance)}
    return {name: value for name, value in values.items() if value is not None}
