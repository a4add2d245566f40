"""How the proxy itself behaves, as opposed to the services behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of the proxy. Sizes in bytes, durations in seconds; 0 seconds for no limit.

    Attributes:
        max_head: Request line and headers together.
        max_headers: Number of header lines.
        max_json_body: A JSON body, which is held in memory; other bodies are streamed without a limit.
        max_connections: Client connections at once.
        head_timeout: From the first byte of a request to the end of its headers.
        body_timeout: Between two reads of a request's body.
        keep_alive_timeout: A connection without a request.
        write_timeout: A client that does not read its response.
        connect_timeout: A new connection to a backend.
        shutdown_timeout: For requests in flight when the proxy is told to end.
    """

    max_head: int = 64 * 1024
    max_headers: int = 128
    max_json_body: int = 64 * MB
    max_connections: int = 10_000
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    write_timeout: float = 60.0
    connect_timeout: float = 5.0
    shutdown_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """Which Docker engine runs services, and how they are reached.

    Attributes:
        host: URL of the engine, as in `DOCKER_HOST`; None for what the environment says.
        certificates: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS; None for what the environment
            says.
        address: Of the engine's machine, where ports are published and reached; None to find out.
        network: Which network of the proxy's own container services join; None for the first by name.
    """

    host: str | None = None
    certificates: Path | None = None
    address: str | None = None
    network: str | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the proxy listens and what it allows.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        ollama_port: Where to stand in the place of an Ollama server; 0 for a free port, None for nowhere.
        watch: Whether to reload the configuration when its file changes.
        limits: What one client may take.
        docker: The engine that runs containers.
    """

    host: str = "127.0.0.1"
    port: int = 11000
    ollama_port: int | None = None
    watch: bool = False
    limits: Limits = Limits()
    docker: DockerSettings = DockerSettings()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How engines that run by themselves are looked for.

    Attributes:
        detect: Whether those found are made routable.
        health_latency_threshold_ms: Slowest answer of a healthy engine, in milliseconds.
        max_network_failures: Tries in a row that must fail before an engine counts as unreachable.
        cache_ttl: Seconds for which a finding holds, and between two looks in the background.
    """

    detect: bool = True
    health_latency_threshold_ms: int = 1500
    max_network_failures: int = 3
    cache_ttl: float = 300.0


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where OpenTelemetry is sent, as the configuration says; variables of the environment come first.

    Attributes:
        otlp_endpoint: Address of a collector; empty for none.
        otlp_protocol: `grpc` or `http/protobuf`.
        headers: Sent with everything, such as the key of a hosted service.
        sample_ratio: Share of the traces begun here that are kept, from 0 to 1.
        service_name: What the proxy is called there.
    """

    otlp_endpoint: str = ""
    otlp_protocol: str = "grpc"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sample_ratio: float = 1.0
    service_name: str = "ai-proxy"


class TlsMode(StrEnum):
    """Where the certificate comes from."""

    OFF = "off"
    FILES = "files"
    DEV_SELFSIGNED = "dev-selfsigned"
    HTTPS_ACME = "https-acme"


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """Where a public certificate is had.

    Attributes:
        domains: Names it is for; the first gives it its name.
        email: Given to the certificate authority with the account; empty for none.
        directory: URL of the certificate authority; empty for Let's Encrypt.
        staging: Whether to take Let's Encrypt's trial service, whose certificates nobody trusts.
        eab_kid: Key id of an account elsewhere, which some authorities want; empty for none.
        eab_hmac_key: Its key, in base64url.
        ca_file: Certificates by which the authority's own server is known; None for the usual ones.
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
    """How clients are served over TLS.

    Attributes:
        mode: Where the certificate comes from.
        certificate: Of mode `files`: PEM, with those between it and the root after it.
        key: Of mode `files`: PEM, without a passphrase; None when it is in the file of the certificate.
        names: Of mode `dev-selfsigned`: names and addresses besides those that the machine knows of.
        redirect_port: Where plain HTTP is sent on to https; None for nowhere.
        acme: Of mode `https-acme`.
    """

    mode: TlsMode = TlsMode.OFF
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    redirect_port: int | None = None
    acme: AcmeSettings = AcmeSettings()


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """Who may call while there is no API key.

    Attributes:
        allow_unauthenticated: Whether to listen beyond this machine nevertheless.
        hosts: Names besides `localhost` by which a listener on this machine may be called.
    """

    allow_unauthenticated: bool = False
    hosts: tuple[str, ...] = ()
