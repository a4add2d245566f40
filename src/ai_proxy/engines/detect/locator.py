"""Finds the address and the program of an engine."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ai_proxy.core.detection import is_loopback
from ai_proxy.core.service import Upstream
from ai_proxy.engines.profile import Locator

DEFAULT_PORTS = {"http": 80, "https": 443}
"""Ports of addresses with a scheme but no port, as Ollama reads them (`envconfig/config.go`, `Host`)."""


def find_address(locator: Locator, env: Mapping[str, str]) -> tuple[Upstream, str]:
    """Return where an engine listens, and a remark when its variable is invalid and was ignored."""
    said = env.get(locator.variable, "").strip()
    if not said:
        return Upstream("127.0.0.1", locator.port), ""
    try:
        return parse_address(said, locator.port), ""
    except ValueError:
        return Upstream("127.0.0.1", locator.port), f"{locator.variable} is no address and was passed over"


def parse_address(text: str, default_port: int) -> Upstream:
    """Read an address as the variables of engines have it; a wildcard becomes the loopback address.

    Raises:
        ValueError: It is none.

    >>> [parse_address(text, 11434).url for text in ("8080", ":8080", "0.0.0.0", "[::1]:80", "gpu-box:9000")]
    ['http://127.0.0.1:8080', 'http://127.0.0.1:8080', 'http://127.0.0.1:11434', 'http://[::1]:80', \
'http://gpu-box:9000']
    >>> parse_address("https://llm.example.com/ollama/", 11434).url
    'https://llm.example.com:443/ollama'
    """
    if text.isdecimal():
        text = f":{text}"
    with_scheme = "://" in text
    parts = urlsplit(text if with_scheme else f"http://{text}")
    if parts.scheme not in DEFAULT_PORTS or parts.query or parts.fragment or parts.username:
        raise ValueError(text)
    host = parts.hostname or "127.0.0.1"
    if not host.isascii() or not host.isprintable() or " " in host or parts.port == 0:
        raise ValueError(text)
    port = parts.port or (DEFAULT_PORTS[parts.scheme] if with_scheme else default_port)
    return Upstream(_reachable(host), port, parts.scheme == "https", parts.path.rstrip("/"))


def _reachable(host: str) -> str:
    """Return a host to connect to: `0.0.0.0` and `::` are addresses to listen on only."""
    if host in ("localhost", "::1") or not is_loopback(host):
        return host
    return "::1" if host == "::" else host if host.startswith("127.") else "127.0.0.1"


def find_program(locator: Locator, env: Mapping[str, str]) -> str | None:
    """Return the path of an engine's program, on PATH or at a known path; None when it is missing."""
    search = env.get("PATH") or os.defpath
    on_path = (shutil.which(program, path=search) for program in locator.programs)
    return next((found for found in (*on_path, *_at_paths(locator.paths, env)) if found), None)


def _at_paths(paths: Iterable[str], env: Mapping[str, str]) -> Iterable[str]:
    home = env.get("HOME", "")
    for text in paths:
        path = Path(text.replace("~", home, 1)) if text.startswith("~") else Path(text)
        if path.is_absolute() and path.exists():
            yield str(path)
