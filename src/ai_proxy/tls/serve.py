"""Provides the TLS context of the listeners, renews its certificate, and redirects plain HTTP."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import TlsMode, TlsSettings
from ai_proxy.platform.tasks import Background, cancel
from ai_proxy.tls.errors import CertificateError

if TYPE_CHECKING:  # these import cryptography, which only TLS needs
    from ai_proxy.tls.context import LiveContext
    from ai_proxy.tls.sources import Source

HTTP_PORT = 80
"""The port on which authorities validate challenges."""
RETRY = 60.0
"""Seconds until the next attempt after a failed renewal."""


type Redirect = Callable[[str, int, int, Mapping[str, bytes]], Awaitable[int]]
"""Listens for plain HTTP, redirects it to https and answers an authority's challenges.

It takes host, port, https port and the answers by token, returns the port, and raises OSError where that is
taken.
"""


class RedirectError(CertificateError):
    """The proxy cannot listen on the port for plain HTTP."""

    code, title = "cannot_redirect", "Cannot listen for plain HTTP"


@asynccontextmanager
async def serve_certificates(
    settings: TlsSettings,
    folder: Path,
    host: str,
    port: int,
    clock: Clock,
    background: Background,
    redirect: Redirect,
) -> AsyncIterator[ssl.SSLContext | None]:
    """Yield the TLS context of the public listeners; None without TLS.

    Until the context exits, the certificate is renewed in time, and plain HTTP is redirected if configured.

    Args:
        settings: The source of the certificate.
        folder: For certificates and keys, in the data directory.
        host: Address to listen on for plain HTTP.
        port: The https port, the target of redirects.
        clock: Times the renewals.
        background: Runs the renewals.
        redirect: Listens for plain HTTP.

    Raises:
        CertificateError: No certificate is usable, or the port for plain HTTP is taken.
        OSError: The folder cannot be written.
    """
    if settings.mode is TlsMode.OFF:
        yield None
        return
    from ai_proxy.tls.context import LiveContext

    challenges: dict[str, bytes] = {}
    async with AsyncExitStack() as stack:
        plain = _redirect_port(settings)
        if plain is not None:
            await _redirect(redirect, host, plain, port, challenges)
        source = _source(settings, folder, port, challenges, clock)
        pause = await _first(source, folder)
        live = LiveContext(source.files)
        _log(source)
        keeping = background.run(CertificateKeeper(source, live, clock, pause).run, "TLS certificate renewal")
        stack.push_async_callback(cancel, keeping)
        yield live.listening


def _redirect_port(settings: TlsSettings) -> int | None:
    """Return the port for plain HTTP; ACME needs one, because authorities validate challenges on it.

    >>> _redirect_port(TlsSettings(TlsMode.HTTPS_ACME)), _redirect_port(TlsSettings(TlsMode.FILES))
    (80, None)
    """
    needed = HTTP_PORT if settings.mode is TlsMode.HTTPS_ACME else None
    return needed if settings.redirect_port is None else settings.redirect_port


async def _redirect(
    redirect: Redirect, host: str, port: int, https_port: int, challenges: Mapping[str, bytes]
) -> None:
    try:
        bound = await redirect(host, port, https_port, challenges)
    except OSError as error:
        raise RedirectError(
            f"cannot listen on {host}:{port} for plain HTTP: {error.strerror or error}; set"
            " tls.redirect_port to a free port to which port 80 is forwarded, or allow ai-proxy to use low"
            " ports"
        ) from error
    logger.info("redirecting plain HTTP on {}:{} to https", host, bound)


def _source(
    settings: TlsSettings, folder: Path, port: int, challenges: dict[str, bytes], clock: Clock
) -> "Source":
    from ai_proxy.tls.certificates import PemFiles
    from ai_proxy.tls.sources import LocalCertificate, OwnFiles, PublicCertificate

    match settings.mode:
        case TlsMode.HTTPS_ACME:
            from ai_proxy.tls.acme import AcmeIssuer, directory_folder, directory_url

            if not settings.acme.domains:
                raise CertificateError("mode https-acme needs tls.acme.domains: the names of the certificate")
            home = directory_folder(folder / "acme", directory_url(settings.acme))
            issuer = AcmeIssuer(settings.acme, home, challenges)
            return PublicCertificate(issuer, settings.acme.domains, home, clock)
        case TlsMode.FILES:
            if settings.certificate is None:
                raise CertificateError("mode files needs tls.certificate: the path of the certificate")
            return OwnFiles(PemFiles(settings.certificate, settings.key), clock)
        case _:
            logger.info("'ai-proxy tls trust' shows how clients trust the local CA")
            return LocalCertificate(folder, folder / f"server-{port}.pem", settings.names, clock)


async def _first(source: "Source", folder: Path) -> float:
    try:
        return await source.renew()
    except OSError as error:
        raise CertificateError(
            f"cannot write to {folder}: {error.strerror or error}; check free space and permissions, or set "
            "AI_PROXY_DATA_DIR to another directory"
        ) from error


class CertificateKeeper:
    """Renews the certificate in time; when that fails, the current one stays in use.

    Args:
        source: Renews it.
        live: The context that uses it.
        clock: Times the renewals.
        pause: Seconds until the next renewal is due.
    """

    def __init__(self, source: "Source", live: "LiveContext", clock: Clock, pause: float) -> None:
        self._source = source
        self._live = live
        self._clock = clock
        self._pause = pause
        self._logged = ""

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled; a restart continues."""
        while True:
            await self._clock.sleep(self._pause)
            self._pause = RETRY
            try:
                self._pause = await self._source.renew()
                if self._live.follow(self._source.files):
                    _log(self._source)
                self._logged = ""
            except (CertificateError, OSError) as error:
                if str(error) != self._logged:
                    logger.error("cannot renew the TLS certificate, the current one stays in use: {}", error)
                self._logged = str(error)


def _log(source: "Source") -> None:
    from ai_proxy.tls.certificates import read_certificate

    logger.info("TLS with a {}", read_certificate(source.files))
