"""Finds the logins that `docker login` has stored, for private images.

https://docs.docker.com/reference/cli/docker/login/ and https://github.com/docker/docker-credential-helpers
"""

import asyncio
import base64
import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.runtimes.docker.api import client_folder

HUB = "https://index.docker.io/v1/"
"""The name of Docker Hub in the file of logins."""

TOKEN = "<token>"  # noqa: S105
"""The user name of helpers that return a token."""

PATIENCE = 10.0
"""Longest wait for a credential helper, in seconds."""


class StoredLogin(msgspec.Struct, frozen=True):
    """A login in the file itself: a user and a password in base 64, or a token."""

    auth: str = ""
    identitytoken: str = ""


class ClientConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What the proxy reads of the settings of the `docker` command."""

    auths: dict[str, StoredLogin] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str | None = None


class HelperAnswer(msgspec.Struct, frozen=True):
    """What a credential helper prints."""

    user: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Credentials for a registry: a user with a password, or a token."""

    registry: str
    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"<Login {self.registry}>"

    def header(self) -> str:
        """Return the value of the header X-Registry-Auth."""
        facts = {"serveraddress": self.registry}
        facts |= {"identitytoken": self.token} if self.token else {}
        facts |= {"username": self.user, "password": self.password} if self.user else {}
        return base64.urlsafe_b64encode(msgspec.json.encode(facts)).decode()


class Logins:
    """Looks logins up at each pull: people log in while the proxy runs.

    Args:
        environ: Names the folder of the `docker` command's settings, and PATH.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._file = client_folder(environ) / "config.json"
        self._path = environ.get("PATH")

    def __repr__(self) -> str:
        return f"<Logins {self._file}>"

    async def find(self, image: str) -> Login | None:
        """Return the login for the registry of an image; None when there is none.

        Raises:
            RuntimeFailureError: The file of logins cannot be read.
        """
        registry = registry_of(image)
        config = self._read()
        helper = (config.cred_helpers or {}).get(registry) or config.creds_store
        found = await self._ask(helper, registry) if helper else None
        return found or stored(config.auths or {}, registry)

    def _read(self) -> ClientConfig:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=ClientConfig)
        except FileNotFoundError:
            return ClientConfig()
        except (OSError, ValueError, RecursionError) as error:
            raise RuntimeFailureError(
                f"cannot read the logins in {self._file} ({error}): correct it, or run 'docker login'"
            ) from error

    async def _ask(self, helper: str, registry: str) -> Login | None:
        """Ask a credential helper; None when it gives no login."""
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
        except OSError as error:
            logger.warning("cannot run docker-credential-{}: {}", helper, error.strerror or error)
            return None
        return _told(answer, registry)


async def _run(program: str, registry: str) -> bytes:
    """Return the output of a credential helper; empty when it fails."""
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
        found = msgspec.json.decode(answer, type=HelperAnswer)
    except (ValueError, RecursionError):
        return None
    if found.user == TOKEN:
        return Login(registry, token=found.secret)
    return Login(registry, found.user, found.secret)


def stored(auths: Mapping[str, StoredLogin], registry: str) -> Login | None:
    """Return the login that the file itself holds.

    >>> stored({"https://ghcr.io/v2/": StoredLogin("bWU6c2VjcmV0")}, "ghcr.io").user
    'me'
    >>> stored({"ghcr.io": StoredLogin()}, "ghcr.io")
    """
    for name, entry in auths.items():
        if name != registry and _machine(name) != _machine(registry):
            continue
        if entry.identitytoken:
            return Login(registry, token=entry.identitytoken)
        user, _, password = _decoded(entry.auth).partition(":")
        if user:
            return Login(registry, user, password)
    return None


def _machine(registry: str) -> str:
    return registry.rpartition("://")[2].partition("/")[0]


def _decoded(auth: str) -> str:
    try:
        return base64.b64decode(auth).decode().rstrip("\0")
    except ValueError:
        return ""


def registry_of(image: str) -> str:
    """Return the registry of an image, as the file of logins names it.

    >>> registry_of("ghcr.io/org/model:1"), registry_of("localhost/model"), registry_of("org/model")
    ('ghcr.io', 'localhost', 'https://index.docker.io/v1/')
    """
    first, slash, _ = image.partition("/")
    named = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    return first if named and first not in ("docker.io", "index.docker.io") else HUB
