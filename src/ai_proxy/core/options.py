"""Options of `ai-proxy serve`, which override the configuration file."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ai_proxy.core.settings import TlsMode, TlsSettings


class LogFormat(StrEnum):
    """Format of log records."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Minimum severity of the log records that are written."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ProxyMode(StrEnum):
    """TLS mode under the name that users see."""

    LOCAL_HTTP = "local-http"
    FILES = TlsMode.FILES.value
    DEV_SELFSIGNED = TlsMode.DEV_SELFSIGNED.value
    HTTPS_ACME = TlsMode.HTTPS_ACME.value

    @classmethod
    def of(cls, tls: TlsMode) -> "ProxyMode":
        """Return the name of a TLS mode.

        >>> [str(ProxyMode.of(tls)) for tls in (TlsMode.OFF, TlsMode.HTTPS_ACME)]
        ['local-http', 'https-acme']
        """
        return cls.LOCAL_HTTP if tls is TlsMode.OFF else cls(tls.value)

    @property
    def tls(self) -> TlsMode:
        """The TLS mode."""
        return TlsMode.OFF if self is ProxyMode.LOCAL_HTTP else TlsMode(self.value)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `ai-proxy serve`; None leaves a choice to the configuration or its default.

    Attributes:
        config: The configuration file.
        host: Address to listen on.
        port: TCP port.
        log_level: Minimum severity of log records.
        log_format: Format of log records.
        log_file: File to write log records to besides standard error.
        run_dir: Base of the run directories.
        detect: Whether to detect engines.
        tls_mode: Source of the server certificate.
        acme_domains: Domains of the ACME certificate; empty for those of the configuration.
        acme_email: Contact address of the ACME account.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    log_file: Path | None = None
    run_dir: Path | None = None
    detect: bool | None = None
    tls_mode: TlsMode | None = None
    acme_domains: tuple[str, ...] = ()
    acme_email: str | None = None


def overridden(tls: TlsSettings, options: ServeOptions) -> TlsSettings:
    """Return TLS settings with the command line's options applied; domains imply mode `https-acme`.

    >>> overridden(TlsSettings(TlsMode.FILES), ServeOptions(acme_domains=("gpu.example.com",))).mode
    <TlsMode.HTTPS_ACME: 'https-acme'>
    """
    implied = TlsMode.HTTPS_ACME if options.acme_domains else tls.mode
    acme = replace(
        tls.acme,
        domains=options.acme_domains or tls.acme.domains,
        email=tls.acme.email if options.acme_email is None else options.acme_email,
    )
    return replace(tls, mode=implied if options.tls_mode is None else options.tls_mode, acme=acme)
