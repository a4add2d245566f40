"""What the command line asks of a run of the server; it overrides the configuration file."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ai_proxy.core.settings import TlsMode, TlsSettings


class LogFormat(StrEnum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe records that are written."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ProxyMode(StrEnum):
    """How a proxy serves, as people call it: TLS in one of its modes, or none."""

    LOCAL_HTTP = "local-http"
    FILES = TlsMode.FILES.value
    DEV_SELFSIGNED = TlsMode.DEV_SELFSIGNED.value
    HTTPS_ACME = TlsMode.HTTPS_ACME.value

    @classmethod
    def of(cls, tls: TlsMode) -> "ProxyMode":
        """Return the name of a way to serve.

        >>> [str(ProxyMode.of(tls)) for tls in (TlsMode.OFF, TlsMode.HTTPS_ACME)]
        ['local-http', 'https-acme']
        """
        return cls.LOCAL_HTTP if tls is TlsMode.OFF else cls(tls.value)

    @property
    def tls(self) -> TlsMode:
        """Where its certificate comes from."""
        return TlsMode.OFF if self is ProxyMode.LOCAL_HTTP else TlsMode(self.value)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve; None leaves a choice to the configuration or to its default.

    Attributes:
        config: The configuration file.
        host: Address to listen on.
        port: TCP port.
        log_level: The least severe log records that are written.
        log_format: How they are written.
        log_file: Where they are written besides standard error.
        run_dir: Base of the run directories.
        detect: Whether engines that run by themselves are looked for.
        tls_mode: Where the certificate comes from.
        acme_domains: Names that a public certificate is for; empty for those of the configuration.
        acme_email: Given to the certificate authority with the account.
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
    """Return how to serve TLS once the command line had its say; domains alone ask for a public certificate.

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
