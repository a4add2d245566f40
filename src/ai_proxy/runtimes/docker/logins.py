"""What `docker login` has left behind, for images that a registry does not give to everybody.

https://docs.docker.com/reference/cli/docker/login/ and https://github.com/docker/docker-credential-helpers
"""

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.runtimes.docker.host import client_folder

HUB = "https://index.docker.io/v1/"
"""What Docker's own registry is called where logins are kept."""

TOKEN = "<token>"  # noqa: S105
"""Stands for the user where a helper has a token instead of a password."""

PATIENCE = 10.0
"""Longest wait for a credential helper, in seconds."""


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Who we are to a registry: a user with a password, or a token."""

    registry: str
    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"<Login {self.registry}>"

    def header(self) -> str:
        """Return it as the engine wants it (X-Registry-Auth)."""
        facts = {"serveraddress": self.registry}
        facts |= {"identitytoken": self.token} if self.token else {}
        facts |= {"username": self.user, "password": self.password} if self.user else {}
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode()


class Logins:
    """Looks logins up anew each time: people log in while the proxy runs.

    Args:
        environ: Tells where the `docker` command keeps its settings, and where programs are.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._file = client_folder(environ) / "config.json"
        self._path = environ.get("PATH")

    def __repr__(self) -> str:
        return f"<Logins {self._file}>"

    async def find(self, image: str) -> Login | None:
        """Return the login for the registry of an image; None when there is none.

        Raises:
            RuntimeFailureError: The file that holds them cannot be read.
        """
        registry = registry_of(image)
        config = self._read()
        helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
        found = await self._ask(helper, registry) if helper else None
        return found or stored(config.get("auths", {}), registry)

    def _read(self) -> Mapping[str, Any]:
        try:
            config = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RuntimeFailureError(
                f"the logins in {self._file} cannot be read ({error}): correct it, or run 'docker login'"
            ) from error
        return config if isinstance(config, dict) else {}

    async def _ask(self, helper: str, registry: str) -> Login | None:
        """Ask a credential helper; without an answer the registry decides what to do with us."""
        program = shutil.which(f"docker-credential-{helper}", path=self._path)
        if program is None:
            logger.warning("{} names docker-credential-{}, which is not installed", self._file, helper)
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await _run(program, registry)
        except TimeoutError:
            logger.warning("docker-credential-{} does not answer", helper)
            return None
        return _told(answer, registry)


async def _run(program: str, registry: str) -> bytes:
    """Return what a credential helper prints, nothing when it knows no login."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, "get", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await process.communicate(registry.encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return output if process.returncode == 0 else b""


def _told(answer: bytes, registry: str) -> Login | None:
    try:
        facts = json.loads(answer)
        user, secret = facts["Username"], facts["Secret"]
    except (ValueError, KeyError, TypeError):
        return None
    if user == TOKEN:
        return Login(registry, token=secret)
    return Login(registry, user, secret)


def stored(auths: Mapping[str, Mapping[str, str]], registry: str) -> Login | None:
    """Return the login that stands in the file itself.

    >>> stored({"https://ghcr.io/v2/": {"auth": "bWU6c2VjcmV0"}}, "ghcr.io").user
    'me'
    >>> stored({"ghcr.io": {}}, "ghcr.io")
    """
    for name, entry in auths.items():
        if name != registry and _machine(name) != _machine(registry):
            continue
        if token := entry.get("identitytoken"):
            return Login(registry, token=token)
        user, _, password = _decoded(entry.get("auth", "")).partition(":")
        if user:
            return Login(registry, user, password)
    return None


def _machine(registry: str) -> str:
    return urlsplit(registry if "://" in registry else f"//{registry}").netloc


def _decoded(auth: str) -> str:
    try:
        return base64.b64decode(auth).decode().rstrip("\0")
    except ValueError:
        return ""


def registry_of(image: str) -> str:
    """Return the registry that an image comes from, as logins are kept for it.

    >>> registry_of("ghcr.io/org/model:1"), registry_of("localhost/model"), registry_of("org/model")
    ('ghcr.io', 'localhost', 'https://index.docker.io/v1/')
    """
    first, slash, _ = image.partition("/")
    named = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    return first if named and first not in ("docker.io", "index.docker.io") else HUB
