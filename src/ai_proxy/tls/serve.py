"""Serves TLS: has a certificate, keeps it fresh, and sends plain HTTP on to https."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.ports import Clock
from ai_proxy.core.settings import TlsMode, TlsSettings
from ai_proxy.platform.tasks import Background, cancel
from ai_proxy.tls.errors import CertificateError
from ai_proxy.tls.redirect import Site, serve_redirect

if TYPE_CHECKING:  # what does cryptography is loaded where TLS is on
    from ai_proxy.tls.context import LiveContext
    from ai_proxy.tls.sources import Source

HTTP_PORT = 80
"""Where authorities look for the answers to their challenges."""
RETRY = 60.0
"""Seconds after which a certificate that could not be used is looked at again."""


class RedirectError(CertificateError):
    """The port for plain HTTP cannot be had."""

    code, title = "cannot_redirect", "Cannot listen for plain HTTP"


@asynccontextmanager
async def serve_certificates(
    settings: TlsSettings, folder: Path, host: str, port: int, clock: Clock, background: Background
) -> AsyncIterator[ssl.SSLContext | None]:
    """Yield what the public listeners are to speak TLS with; None when they are not to.

    The certificate is kept fresh, and replaced in the context, until this is left. Meanwhile plain HTTP is
    answered where the settings say so.

    Args:
        settings: Where the certificate comes from.
        folder: Where certificates and keys are kept, in the data directory.
        host: Address for plain HTTP.
        port: Where https is served.
        clock: Tells when a certificate is due.
        background: Keeps the certificate fresh.

    Raises:
        CertificateError: No certificate can be used, or the port for plain HTTP cannot be had.
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
            await _listen(stack, host, plain, Site(port, challenges))
        source = _source(settings, folder, port, challenges, clock)
        pause = await _first(source, folder)
        live = LiveContext(source.files)
        _tell(source)
        keeping = background.run(CertificateKeeper(source, live, clock, pause).run, "TLS certificate renewal")
        stack.push_async_callback(cancel, keeping)
        yield live.listening


def _redirect_port(settings: TlsSettings) -> int | None:
    """Return where plain HTTP is answered; an authority asks for its challenges nowhere else.

    >>> _redirect_port(TlsSettings(TlsMode.HTTPS_ACME)), _redirect_port(TlsSettings(TlsMode.FILES))
    (80, None)
    """
    needed = HTTP_PORT if settings.mode is TlsMode.HTTPS_ACME else None
    return needed if settings.redirect_port is None else settings.redirect_port


async def _listen(stack: AsyncExitStack, host: str, port: int, site: Site) -> None:
    try:
        bound = await stack.enter_async_context(serve_redirect(host, port, site))
    except OSError as error:
        raise RedirectError(
            f"cannot listen on {host}:{port} for plain HTTP: {error.strerror or error}; give"
            " tls.redirect_port another one, to which port 80 is forwarded, or allow this program low ports"
        ) from error
    logger.info("plain HTTP on {}:{} is sent on to https", host, bound)


def _source(
    settings: TlsSettings, folder: Path, port: int, challenges: dict[str, bytes], clock: Clock
) -> "Source":
    from ai_proxy.tls.certificates import PemFiles
    from ai_proxy.tls.sources import LocalCertificate, OwnFiles, PublicCertificate

    match settings.mode:
        case TlsMode.HTTPS_ACME:
            from ai_proxy.tls.acme import AcmeIssuer, directory_folder, directory_url

            if not settings.acme.domains:
                raise CertificateError("mode https-acme needs tls.acme.domains: the names it is for")
            home = directory_folder(folder / "acme", directory_url(settings.acme))
            issuer = AcmeIssuer(settings.acme, home, challenges)
            return PublicCertificate(issuer, settings.acme.domains, home, clock)
        case TlsMode.FILES:
            if settings.certificate is None:
                raise CertificateError("mode files needs tls.certificate: the file of the certificate")
            return OwnFiles(PemFiles(settings.certificate, settings.key), clock)
        case _:
            logger.info("clients can be made to trust the local CA: 'ai-proxy tls trust' says how")
            return LocalCertificate(folder, folder / f"server-{port}.pem", settings.names, clock)


async def _first(source: "Source", folder: Path) -> float:
    try:
        return await source.renew()
    except OSError as error:
        raise CertificateError(
            f"{folder} cannot be used: {error.strerror or error}; make room, see who may write there, or "
            "choose another data folder with AI_PROXY_DATA_DIR"
        ) from error


class CertificateKeeper:
    """Renews the certificate in time; whatever fails, the one in use stays in use.

    Args:
        source: Renews it.
        live: Uses it.
        clock: Tells when it is due.
        pause: Seconds until the next renewal is due.
    """

    def __init__(self, source: "Source", live: "LiveContext", clock: Clock, pause: float) -> None:
        self._source = source
        self._live = live
        self._clock = clock
        self._pause = pause
        self._logged = ""

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled; started again, it goes on where it was."""
        while True:
            await self._clock.sleep(self._pause)
            self._pause = RETRY
            try:
                self._pause = await self._source.renew()
                if self._live.follow(self._source.files):
                    _tell(self._source)
                self._logged = ""
            except (CertificateError, OSError) as error:
                if str(error) != self._logged:
                    logger.error("cannot renew the TLS certificate, the one in use stays: {}", error)
                self._logged = str(error)


def _tell(source: "Source") -> None:
    from ai_proxy.tls.certificates import read_certificate

    logger.info("TLS with a {}", read_certificate(source.files))
