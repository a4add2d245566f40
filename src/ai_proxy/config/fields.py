"""Types of configuration values: each with its validation, JSON Schema and serialization."""

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv6Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ai_proxy.config.problems import did_you_mean
from ai_proxy.config.references import Resolved, locate
from ai_proxy.core.durations import PATTERN, format_duration, parse_duration
from ai_proxy.core.service import Mount, RuntimeKind, Upstream
from ai_proxy.engines.catalog import find_engines
from ai_proxy.runtimes.catalog import find_runtimes

REFERENCE = {"type": "string", "pattern": r"\$\{(env|file):"}
"""JSON Schema of a text with a reference, allowed in place of a number or a duration."""

DURATION_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": PATTERN}, {"const": 0}, REFERENCE],
    "x-kind": "duration",
}

SERVICE_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class Model(BaseModel):
    """Base of every section: unknown keys and wrong types are errors, and instances are immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the keys only: any value may hold a secret from the environment."""
        yield "keys", sorted(self.model_fields_set)


def invalid(message: str, hint: str) -> PydanticCustomError:
    """Return the error for a validator to raise; `{value}` in the message becomes the value in the file."""
    return PydanticCustomError("invalid", "{message}; {hint}", {"message": message, "hint": hint})


def _matches(pattern: str, message: str, hint: str) -> AfterValidator:
    """Return a validator for text that matches a pattern; `{name}` in the message becomes the text."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise invalid(message.replace("{name}", repr(value)), hint)
        return value

    return AfterValidator(check)


def _duration(value: object) -> float:
    """Read a duration: seconds as a float, text with units, or 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value != 0:
        raise invalid("{value} has no unit", f'write "{value}s" for seconds, or use m or h')
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        raise invalid("not a duration", 'write text such as "10m", "90s" or "1h30m"')
    try:
        return parse_duration(value)
    except ValueError:
        raise invalid(
            "{value} is not a duration", 'write for example "10m", "90s", "1h30m" or "500ms"'
        ) from None


def _not_zero(seconds: float) -> float:
    if seconds <= 0:
        raise invalid("may not be 0", 'write for example "30s"')
    return seconds


def _show_duration(seconds: float) -> str | int:
    return format_duration(seconds) if seconds else 0


Duration = Annotated[
    float, BeforeValidator(_duration), PlainSerializer(_show_duration), WithJsonSchema(DURATION_SCHEMA)
]
"""Seconds, written `10m`, `90s`, `1h30m`, `500ms` or 0."""

PositiveDuration = Annotated[Duration, AfterValidator(_not_zero)]


def _number(value: object) -> object:
    """Convert a resolved reference such as `${env:PORT}` to a whole number."""
    return int(value) if isinstance(value, Resolved) and re.fullmatch(r"[0-9]{1,18}", value) else value


Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_number)]
PortOrZero = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number)]
CountOrZero = Annotated[int, Field(ge=0), BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[str, ...], Field(strict=False)]
Command = Annotated[Words, Field(min_length=1)]


def _api_key(value: object) -> object:
    if not isinstance(value, str):
        raise invalid("not text", "write ${env:NAME} or ${file:PATH}")
    if not isinstance(value, Resolved):
        raise invalid(
            "a secret must not be in the file",
            "put it into a variable and write ${env:NAME}, or into a file and write ${file:PATH}",
        )
    if not value or not value.isascii() or not value.isprintable():
        raise invalid("is empty, or has characters that a header cannot have", "check the variable or file")
    return value


ApiKey = Annotated[SecretStr, BeforeValidator(_api_key), WithJsonSchema(REFERENCE)]
"""A secret, which must be a reference."""


_HEADER = _matches(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "{name} is not a valid header name", "use letters, digits and '-'"
)
SecretHeaders = dict[Annotated[str, _HEADER], ApiKey]
"""Headers by name; their values may be secret, so they must be references."""


Name = Annotated[
    str,
    _matches(
        SERVICE_ID.pattern,
        "{name} is not a valid name for a service or a type",
        "use up to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
    ),
]
_VARIABLE = _matches(r"[^=\0]+", "{name} is not a valid variable name", "use letters, digits and '_'")
Environment = dict[Annotated[str, _VARIABLE], str]


HealthPath = Annotated[
    str,
    _matches(
        r"none|/[!-~]*",
        "not a path",
        'begin it with "/", or write "none" when the backend has no health check',
    ),
]


def _host(value: str) -> str:
    if ":" in value:
        try:
            IPv6Address(value)
        except ValueError:
            raise invalid(
                "{value} is not a host", "write only a name or address; the port has its own key"
            ) from None
    elif not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        raise invalid("{value} is not a host", 'write a name or an address such as "127.0.0.1"')
    return value


Host = Annotated[str, AfterValidator(_host)]


EngineUrl = Annotated[
    str,
    _matches(
        r"(unix:///|(tcp|http|https|ssh)://[^/])[!-~]*",
        "{value} is not the URL of a Docker engine",
        "write for example unix:///run/docker.sock, tcp://gpu-box:2376 or ssh://me@gpu-box",
    ),
]


def _reachable_host(value: str) -> str:
    if value in ("0.0.0.0", "::"):  # noqa: S104
        raise invalid(
            "{value} is not a reachable address", "write the address of the Docker engine's machine"
        )
    return _host(value)


ReachableHost = Annotated[str, AfterValidator(_reachable_host)]


def parse_url(text: str) -> Upstream:
    """Parse the URL of a backend.

    Raises:
        PydanticCustomError: It is not a valid URL. The error omits it, since it may hold a password.

    >>> parse_url("https://api.example.com/llm/").url
    'https://api.example.com:443/llm'
    """
    example = "write for example http://127.0.0.1:8000 or https://api.example.com"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise invalid("not a URL", example) from None
    if url.scheme not in ("http", "https") or not host or not re.fullmatch(r"[!-~]+", text):
        raise invalid("not a URL with http:// or https://", example)
    if url.username is not None or url.password is not None:
        raise invalid("a URL must not contain a user or password", "use api_key for the backend's key")
    if "?" in text or "#" in text:
        raise invalid(
            "a URL must not contain a query or fragment", "remove '?' or '#' and everything after it"
        )
    if port == 0:
        raise invalid("port 0 is not a port to connect to", example)
    tls = url.scheme == "https"
    return Upstream(host, port or (443 if tls else 80), tls=tls, base_path=url.path.rstrip("/"))


def _url(value: str) -> str:
    parse_url(value)
    return value


Url = Annotated[str, AfterValidator(_url)]


def parse_volume(text: str, folder: Path) -> Mount:
    """Parse `host:container[:ro|rw]`; a relative host path starts at `folder`.

    Raises:
        PydanticCustomError: It is not a volume.

    >>> parse_volume("/models:/models:ro", Path("/srv"))
    Mount(source='/models', target='/models', read_only=True)
    >>> parse_volume("./models:/models", Path("/srv")).source
    '/srv/models'
    """
    example = 'write "host:container", with ":ro" for read-only, for example "/models:/models:ro"'
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target:
        raise invalid("not a volume", example)
    if mode not in ("", "ro", "rw") or (not mode and rest.endswith(":")):
        raise invalid("a volume's mode must be ro or rw", example)
    if not target.startswith("/") or ".." in PurePosixPath(target).parts or target == "/":
        raise invalid("the path in the container must be absolute", example)
    if not source.startswith(("/", "./", "../", "~/")):
        raise invalid(
            "the host side must be a path", 'begin it with "/", or with "./" for a folder beside this file'
        )
    return Mount(str(locate(source, folder)), target, read_only=mode == "ro")


def config_folder(info: ValidationInfo) -> Path:
    """Return the base of relative paths: the folder of the file, or else the current folder."""
    folder = (info.context or {}).get("folder", Path())
    return Path(folder).absolute()


def _volume(value: str, info: ValidationInfo) -> str:
    mount = parse_volume(value, config_folder(info))
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"


Volume = Annotated[str, AfterValidator(_volume)]


def _workdir(value: str, info: ValidationInfo) -> str:
    path = locate(value, config_folder(info))
    if not path.is_dir():
        raise invalid(
            "there is no such folder",
            "create it, or correct the path; a relative path starts at this file's folder",
        )
    return str(path)


Workdir = Annotated[str, AfterValidator(_workdir)]


def _existing_file(value: str, info: ValidationInfo) -> str:
    path = locate(value, config_folder(info))
    if not path.is_file():
        raise invalid(
            "there is no such file", "correct the path; a relative path starts at this file's folder"
        )
    return str(path)


ExistingFile = Annotated[str, AfterValidator(_existing_file)]


def _domain(value: str) -> str:
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if value.startswith("*."):
        raise invalid(
            "{value}: a wildcard certificate cannot be obtained over HTTP",
            "list the names one by one",
        )
    if not re.fullmatch(rf"({label}\.)*{label}", value) or value.rpartition(".")[2].isdigit():
        raise invalid("{value} is not a domain", "write a name such as gpu.example.com")
    return value.lower()


Domain = Annotated[str, AfterValidator(_domain)]


Email = Annotated[
    str,
    _matches(
        r"[!-?A-~]+@[A-Za-z0-9.-]+",
        "{value} is not an e-mail address",
        "write for example admin@example.com",
    ),
]


def _gpus(value: object) -> tuple[str, ...]:
    """Read `all`, `none`, a count, or a list of device ids."""
    number = _number(value)
    if isinstance(number, tuple):
        return number
    if value in ("all", "none"):
        return ("all",) if value == "all" else ()
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return (str(number),) if number else ()
    if isinstance(value, list) and value and all(isinstance(item, str) and item for item in value):
        return tuple(f"device={item}" for item in value)
    raise invalid(
        "not a selection of GPUs", 'write all, none, a count such as 1, or a list of ids: ["0", "1"]'
    )


def gpu_devices(gpus: tuple[str, ...]) -> list[str]:
    """Return the device ids that are listed individually.

    >>> gpu_devices(("device=0", "device=GPU-1b2c")), gpu_devices(("all",))
    (['0', 'GPU-1b2c'], [])
    """
    return [gpu.removeprefix("device=") for gpu in gpus if gpu.startswith("device=")]


def _show_gpus(gpus: tuple[str, ...]) -> str | int | list[str]:
    if not gpus:
        return "none"
    return gpu_devices(gpus) or (int(gpus[0]) if gpus[0].isdigit() else gpus[0])


Gpus = Annotated[
    tuple[str, ...],
    BeforeValidator(_gpus),
    PlainSerializer(_show_gpus),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["all", "none"]},
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                REFERENCE,
            ],
            "x-kind": "all, none, a count, or a list of ids",
        }
    ),
]
"""In core's form: empty for none, `all`, a count as digits, or `device=<id>` for each device."""


def _one_of(names: Collection[str]) -> tuple[BeforeValidator, WithJsonSchema]:
    """Return the validator and the schema of a name that must be one of those installed."""

    def read(value: object) -> str:
        if value not in names:
            hint = did_you_mean(str(value), names, f"use {', '.join(names)}")
            raise invalid("{value} is not allowed", hint)
        return str(value)

    return BeforeValidator(read), WithJsonSchema({"enum": list(names), "type": "string"})


RuntimeName = Annotated[str, *_one_of(tuple(dict.fromkeys([*map(str, RuntimeKind), *find_runtimes()])))]
EngineName = Annotated[str, *_one_of(find_engines())]
