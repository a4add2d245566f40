"""References in values, `${env:NAME}` and `${file:PATH}`, which keep secrets out of the file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ai_proxy.config.document import Value
from ai_proxy.config.problems import Fault, KeyPath

MAX_FILE = 1024 * 1024
"""Largest file, in bytes, that a reference may read."""

_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}")
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Resolved(str):
    """Text that came at least partly from the environment or a file, and so may be secret."""

    __slots__ = ()


class _UnresolvedError(Exception):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(slots=True)
class Resolution:
    """A document with its references resolved.

    Attributes:
        data: The data with every reference replaced, except those in `faults`.
        written: The text in the file of each value that holds a reference.
        faults: References that cannot be resolved.
    """

    data: Value = None
    written: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def resolve(data: Value, environ: Mapping[str, str], folder: Path) -> Resolution:
    """Replace every reference in every text of the data.

    Args:
        data: Plain data; it is not modified.
        environ: Environment variables for `${env:NAME}`.
        folder: Base of a relative `${file:PATH}`: the folder of the configuration file.
    """
    resolution = Resolution()

    def text(value: str, path: KeyPath) -> str:
        if "${" not in value:
            return value
        try:
            replaced = expand(value, environ, folder)
        except _UnresolvedError as error:
            resolution.faults.append(Fault(path, error.message, error.hint))
            return value
        if isinstance(replaced, Resolved):
            resolution.written[path] = value
        return replaced

    resolution.data = _map_text(data, (), text)
    return resolution


def expand(text: str, environ: Mapping[str, str], folder: Path) -> str:
    """Replace the references of one text.

    `${port}` stays for the runtime, which knows the port; `$${` becomes a plain `${`.

    >>> expand("${env:HOME}/x.gguf", {"HOME": "/root"}, Path())
    '/root/x.gguf'
    >>> expand("--port ${port} ${env:MODE:-fast}", {}, Path())
    '--port ${port} fast'
    >>> expand("echo $${HOME}", {}, Path())
    'echo ${HOME}'
    """
    found = False

    def replace(match: re.Match[str]) -> str:
        nonlocal found
        whole, body = match.group(), match.group(1)
        if whole.startswith("$$"):
            return whole[1:]
        if body == "port":
            return whole
        found = True
        return _look_up(body, environ, folder)

    expanded = _REFERENCE.sub(replace, text)
    return Resolved(expanded) if found else expanded


def _look_up(body: str, environ: Mapping[str, str], folder: Path) -> str:
    if "${" in body:
        raise _UnresolvedError("references cannot be nested", "use one ${...} after the other")
    if match := _ENV.fullmatch(body):
        name, default = match.groups()
        value = environ.get(name) or default  # as in a shell, an empty variable takes the default
        if value is not None:
            return value
        if name in environ:
            return ""
        raise _UnresolvedError(
            f"environment variable {name} is not set",
            f"set it, or write a default: ${{env:{name}:-default}}",
        )
    if body.startswith("file:"):
        return _read(body.removeprefix("file:"), folder)
    raise _UnresolvedError(
        f"${{{body}}} is not a reference",
        f"write ${{env:{body}}} for an environment variable, or $${{{body}}} for the text itself"
        if body.isidentifier()
        else "write ${env:NAME}, ${file:PATH} or ${port}",
    )


def _read(name: str, folder: Path) -> str:
    try:
        with locate(name, folder).open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise _UnresolvedError(
                f"file {name} is larger than 1 MB", "name a file that holds only the value"
            )
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _UnresolvedError(f"file {name} is not UTF-8 text", "save it as UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise _UnresolvedError(
            f"file {name} cannot be read ({reason})",
            "create it, or correct the path; a relative path starts at this file's folder",
        ) from None


def locate(name: str, folder: Path) -> Path:
    """Return a path of the file made absolute: relative paths start at `folder`, `~/` at the user's home.

    >>> locate("models", Path("/srv")), locate("/models", Path("/srv"))
    (PosixPath('/srv/models'), PosixPath('/models'))
    """
    return folder / (Path(name).expanduser() if name.startswith("~/") else name)


def _map_text(value: Value, path: KeyPath, change: Callable[[str, KeyPath], str]) -> Value:
    match value:
        case str():
            return change(value, path)
        case dict():
            return {key: _map_text(child, (*path, key), change) for key, child in value.items()}
        case list():
            return [_map_text(child, (*path, index), change) for index, child in enumerate(value)]
        case _:
            return value
