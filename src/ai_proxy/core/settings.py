"""Settings of the proxy itself, as opposed to those of the services behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients of the proxy. Sizes in bytes, durations in seconds; 0 seconds means no limit.

    Attributes:
        max_head: Size of the request line and headers together.
        max_headers: Number of header lines.
        max_json_body: Size of a JSON body, which is held in memory; other bodies stream without a limit.
        max_held_bodies: Size of all bodies together that are held: until they are whole, while their services
            start, and until their backends answer.
        max_held_bodies_per_client: Size of those of one API key, or of one address without a key.
        max_connections: Number of open client connections.
        head_timeout: From the first byte of a request to the end of its headers.
        body_timeout: Longest pause between two reads of a request's body.
        keep_alive_timeout: Longest time a connection stays open without a request.
        write_timeout: Longest time a client may leave its response unread.
        connect_timeout: Time to open a connection to a backend.
        shutdown_timeout: Time for requests in flight to finish when the proxy shuts down.
    """

    max_head: int = 64 * 1024
    max_headers: int = 128
    max_json_body: int = 32 * MB
    max_held_bodies: int = 256 * MB
    max_held_bodies_per_client: int = 96 * MB
    max_connections: int = 10_000
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    write_timeout: float = 60.0
    connect_timeout: float = 5.0
    shutdown_timeout: float = 30.0


OWN_FILES = 64
"""Open files that the proxy needs for itself, with a reserve: the store, sockets, logs of processes."""


def within_open_files(limits: Limits, files: int) -> Limits:
    """Return limits whose connections fit the limit of open files.

    A request in flight takes two files, one for the client and one for the backend. Clients above the limit
    of connections get an error; above the limit of files, the system accepts no connection at all.

    Args:
        limits: As configured.
        files: How many may be open.

    >>> within_open_files(Limits(max_connections=10_000), 65_536).max_connections
    10000
    >>> within_open_files(Limits(max_connections=10_000), 1024).max_connections
    480
    """
    return replace(limits, max_connections=max(1, min(limits.max_connections, (files - OWN_FILES) // 2)))


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """The Docker engine that runs services, and the address of what it runs.

    Attributes:
        host: URL of the engine, as in `DOCKER_HOST`; None to use the environment's.
        certificates: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS; None to use the environment's.
        address: Address of the engine's machine, on which it publishes ports; None to find it out.
        network: Network of the proxy's own container that services join; None for the first by name.
    """

    host: str | None = None
    certificates: Path | None = None
    address: str | None = None
    network: str | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Addresses the proxy listens on, and its limits.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        ollama_port: TCP port of Ollama's API; 0 for a free one, None for no such listener.
        watch: Whether to reload the configuration when its file changes.
        limits: Limits for clients.
        docker: The Docker engine.
    """

    host: str = "127.0.0.1"
    port: int = 11000
    ollama_port: int | None = None
    watch: bool = False
    limits: Limits = Limits()
    docker: DockerSettings = DockerSettings()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the proxy detects engines that it did not start.

    Attributes:
        detect: Whether detected engines become services.
        health_latency_threshold_ms: Slowest response of a healthy engine, in milliseconds.
        max_network_failures: Consecutive failed attempts after which an engine counts as unreachable.
        cache_ttl: Seconds a detection stays valid, and between two detections in the background.
    """

    detect: bool = True
    health_latency_threshold_ms: int = 1500
    max_network_failures: int = 3
    cache_ttl: float = 300.0


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where OpenTelemetry data is sent; environment variables take precedence over these.

    Attributes:
        otlp_endpoint: URL of a collector; empty for none.
        otlp_protocol: `grpc` or `http/protobuf`.
        headers: Sent with every export, such as the key of a hosted service.
        sample_ratio: Share of the traces started by the proxy that are kept, from 0 to 1.
        service_name: Name of the proxy in traces and metrics.
    """

    otlp_endpoint: str = ""
    otlp_protocol: str = "grpc"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sample_ratio: float = 1.0
    service_name: str = "ai-proxy"


class TlsMode(StrEnum):
    """Source of the server certificate."""

    OFF = "off"
    FILES = "files"
    DEV_SELFSIGNED = "dev-selfsigned"
    HTTPS_ACME = "https-acme"


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """How a public certificate is obtained over ACME.

    Attributes:
        domains: Domains of the certificate; the first one names it.
        email: Contact address of the account; empty for none.
        directory: URL of the certificate authority; empty for Let's Encrypt.
        staging: Whether to use Let's Encrypt's staging service, whose certificates no client trusts.
        eab_kid: Key id of an external account, which some authorities require; empty for none.
        eab_hmac_key: Key of the external account, in base64url.
        ca_file: CA certificates that verify the authority's own server; None for the system's.
    """

    domains: tuple[str, ...] = ()
    email: str = ""
    directory: str = ""
    staging: bool = False
    eab_kid: str = ""
    eab_hmac_key: str = field(default="", repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How the proxy serves clients over TLS.

    Attributes:
        mode: Source of the certificate.
        certificate: Mode `files`: PEM file of the certificate, followed by its intermediates.
        key: Mode `files`: PEM file of the key, without a passphrase; None when `certificate` holds it.
        names: Mode `dev-selfsigned`: names and addresses besides the machine's own.
        redirect_port: TCP port that redirects plain HTTP to https; None for none.
        acme: Mode `https-acme`: how to obtain the certificate.
    """

    mode: TlsMode = TlsMode.OFF
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    redirect_port: int | None = None
    acme: AcmeSettings = AcmeSettings()

    @property
    def is_public(self) -> bool:
        """Whether clients trust the certificate of themselves: it is no local CA's, nor for a trial."""
        staging = self.mode is TlsMode.HTTPS_ACME and self.acme.staging
        return self.mode in (TlsMode.FILES, TlsMode.HTTPS_ACME) and not staging


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the audit log and of usage is kept. Durations in seconds; 0 means for ever.

    Attributes:
        audit: Age of the oldest entry of the audit log.
        audit_entries: Number of entries of actions, and as many again of refused requests.
        usage: Age of the oldest count of requests.
        usage_rows: Number of counts, one for each day, key and model.
    """

    audit: float = 365 * 86_400.0
    audit_entries: int = 200_000
    usage: float = 730 * 86_400.0
    usage_rows: int = 200_000


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What the proxy allows while no API key exists.

    Attributes:
        allow_unauthenticated: Whether to listen on public addresses nevertheless.
        hosts: Host names besides `localhost` that a loopback listener accepts.
    """

    allow_unauthenticated: bool = False
    hosts: tuple[str, ...] = ()
