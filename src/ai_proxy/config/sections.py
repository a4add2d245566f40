"""The keys that say how the proxy itself behaves, section by section."""

from typing import Annotated, Literal

from pydantic import Field

from ai_proxy.config.fields import (
    ApiKey,
    Count,
    Domain,
    Duration,
    Email,
    EngineUrl,
    ExistingFile,
    Host,
    PortOrZero,
    PositiveDuration,
    ReachableHost,
    SecretHeaders,
    Text,
    Url,
    Workdir,
)
from ai_proxy.config.model import Model
from ai_proxy.core.settings import (
    MB,
    EngineSettings,
    Limits,
    SecuritySettings,
    ServerSettings,
    TelemetrySettings,
    TlsMode,
)

_LIMITS = Limits()
_SERVER = ServerSettings()
_TELEMETRY = TelemetrySettings()
_ENGINES = EngineSettings()
_SECURITY = SecuritySettings()


class LimitsConfig(Model):
    """What one client may take of the proxy. A time of 0 is no limit."""

    max_json_body_mb: Count = Field(
        default=_LIMITS.max_json_body // MB,
        description="Largest JSON body in MB; it is held in memory. Others are streamed without a limit.",
    )
    max_head_kb: Count = Field(
        default=_LIMITS.max_head // 1024, description="Request line and headers together, in KB."
    )
    max_headers: Count = Field(default=_LIMITS.max_headers, description="Number of header lines.")
    max_connections: Count = Field(default=_LIMITS.max_connections, description="Client connections at once.")
    head_timeout: Duration = Field(
        default=_LIMITS.head_timeout,
        description="From the first byte of a request to the end of its headers.",
    )
    body_timeout: Duration = Field(
        default=_LIMITS.body_timeout, description="Between two reads of a request's body."
    )
    keep_alive_timeout: Duration = Field(
        default=_LIMITS.keep_alive_timeout,
        description="How long a connection may stay open without a request.",
    )
    write_timeout: Duration = Field(
        default=_LIMITS.write_timeout, description="How long a client may leave its response unread."
    )
    connect_timeout: PositiveDuration = Field(
        default=_LIMITS.connect_timeout, description="For a new connection to a backend."
    )
    shutdown_timeout: Duration = Field(
        default=_LIMITS.shutdown_timeout,
        description="How long requests in flight may go on when the proxy is told to end.",
    )


class DockerEngineConfig(Model):
    """The Docker engine that runs services; by default the one that the `docker` command uses."""

    host: EngineUrl | None = Field(
        default=None,
        description="URL of the engine. Default: `DOCKER_HOST`, the current context, or the usual socket.",
        examples=["tcp://gpu-box:2376"],
    )
    certificates: Workdir | None = Field(
        default=None,
        description="Folder with ca.pem, cert.pem and key.pem, for TLS; a relative one begins beside this "
        "file. Default: `DOCKER_CERT_PATH`, if `DOCKER_TLS_VERIFY` is set.",
        examples=["./docker-certificates"],
    )
    address: ReachableHost | None = Field(
        default=None,
        description="Address of the engine's machine on which ports are published, and by which services are "
        "reached. Default: the host of a remote engine's URL, else 127.0.0.1.",
        examples=["10.0.0.5"],
    )
    network: Text | None = Field(
        default=None,
        description="Which network services join when the proxy itself runs in a container. "
        "Default: the first, by name, of the container's networks.",
        examples=["models"],
    )


class ServerConfig(Model):
    """Where the proxy listens. Changes take effect when it is restarted."""

    host: Host = Field(default=_SERVER.host, description="Address to listen on.", examples=["127.0.0.1"])
    port: PortOrZero = Field(
        default=_SERVER.port, description="TCP port; 0 takes a free one.", examples=[11000]
    )
    ollama_port: PortOrZero | None = Field(
        default=_SERVER.ollama_port,
        description="Also listen here in the place of an Ollama server, for its clients; "
        "0 takes a free port. Default: not at all.",
        examples=[11434],
    )
    watch: bool = Field(
        default=_SERVER.watch, description="Reload when this file changes; a faulty file changes nothing."
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="What one client may take of the proxy.")
    docker: DockerEngineConfig = Field(
        default=DockerEngineConfig(), description="The Docker engine that runs services."
    )


class EngineConfig(Model):
    """Engines that run by themselves. Changes take effect when the proxy is restarted."""

    detect: bool = Field(
        default=_ENGINES.detect,
        description="Look for llama.cpp, vLLM, Ollama and LM Studio on this machine, at the start and then "
        "every `cache_ttl`, and offer what they serve.",
    )
    health_latency_threshold_ms: Count = Field(
        default=_ENGINES.health_latency_threshold_ms,
        description="Slowest answer of a healthy engine, in milliseconds; a slower one is degraded.",
    )
    max_network_failures: Count = Field(
        default=_ENGINES.max_network_failures,
        description="Tries in a row that must fail before an engine counts as unreachable.",
    )
    cache_ttl: PositiveDuration = Field(
        default=_ENGINES.cache_ttl, description="How long what was found out holds.", examples=["5m"]
    )


class TelemetryConfig(Model):
    """Where OpenTelemetry is sent. The standard `OTEL_*` variables come first; a restart is needed."""

    otlp_endpoint: Url | None = Field(
        default=None,
        description="Address of a collector; without one nothing is sent.",
        examples=["http://127.0.0.1:4317"],
    )
    otlp_protocol: Literal["grpc", "http/protobuf"] = Field(
        default="grpc",
        description="How it is spoken to: collectors take gRPC on port 4317 and HTTP on 4318.",
        examples=["grpc"],
    )
    headers: SecretHeaders = Field(
        default_factory=dict,
        description="Headers sent along; values only as `${env:NAME}` or `${file:PATH}`.",
        examples=[{"signoz-ingestion-key": "${env:SIGNOZ_KEY}"}],
    )
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=_TELEMETRY.sample_ratio,
        description="Share of the traces begun here that are kept; those of clients are kept as they say.",
        examples=[0.1],
    )
    service_name: Text = Field(
        default=_TELEMETRY.service_name, description="What the proxy is called there.", examples=["ai-proxy"]
    )


class AcmeConfig(Model):
    """The public certificate authority of mode `https-acme`; its terms of service are agreed to by use."""

    domains: Annotated[tuple[Domain, ...], Field(strict=False, min_length=1)] = Field(
        description="Names that the certificate is for; each must lead to this machine from the internet.",
        examples=[["gpu.example.com"]],
    )
    email: Email | None = Field(
        default=None, description="Given to the authority with the account.", examples=["admin@example.com"]
    )
    directory: Url | None = Field(
        default=None,
        description="URL of the authority's directory. Default: Let's Encrypt.",
        examples=["https://ca.lan:9000/acme/acme/directory"],
    )
    staging: bool = Field(
        default=False,
        description="Use Let's Encrypt's trial service: generous limits, but nobody trusts its certificates.",
    )
    eab_kid: Text | None = Field(
        default=None,
        description="Key id of an account made elsewhere, for authorities that want one.",
        examples=["kid-1"],
    )
    eab_hmac_key: ApiKey | None = Field(
        default=None,
        description="Key of that account; only `${env:NAME}` or `${file:PATH}`.",
        examples=["${env:EAB_KEY}"],
    )
    ca_file: ExistingFile | None = Field(
        default=None,
        description="PEM file by which the authority's own server is known, when it is private.",
        examples=["./root-ca.pem"],
    )


class TlsConfig(Model):
    """TLS in front of everything. Changes take effect when the proxy is restarted."""

    mode: Annotated[TlsMode, Field(strict=False)] = Field(
        default=TlsMode.OFF,
        description="Where the certificate comes from: nowhere, your files, a local CA, or a public one.",
        examples=["dev-selfsigned"],
    )
    certificate: ExistingFile | None = Field(
        default=None,
        description="files: PEM file with the server's certificate and, after it, those up to the root. "
        "It is read again when it changes.",
        examples=["./fullchain.pem"],
    )
    key: ExistingFile | None = Field(
        default=None,
        description="files: PEM file with the private key, without a passphrase. Default: `certificate`.",
        examples=["./privkey.pem"],
    )
    names: Annotated[tuple[Host, ...], Field(strict=False)] = Field(
        default=(),
        description="dev-selfsigned: names and addresses besides those that the machine knows of.",
        examples=[["gpu.example.com"]],
    )
    redirect_port: PortOrZero | None = Field(
        default=None,
        description="Answer plain HTTP here: send clients on to https. Default: 80 for https-acme, else not.",
        examples=[80],
    )
    acme: AcmeConfig | None = Field(default=None, description="https-acme: the authority and the domains.")


class StoreConfig(Model):
    """Where what lasts is kept. Changes take effect when the proxy is restarted."""

    url: ApiKey | None = Field(
        default=None,
        description="URL of a database, `postgresql://user:password@host/name`, to share between proxies; "
        "only `${env:NAME}` or `${file:PATH}`. Default: an SQLite file in the data directory.",
        examples=["${env:AI_PROXY_STORE_URL}"],
    )


class SecurityConfig(Model):
    """Who may call while there is no API key. Changes take effect when the proxy is restarted."""

    allow_unauthenticated: bool = Field(
        default=_SECURITY.allow_unauthenticated,
        description="Listen beyond this machine although there is no API key: whoever reaches the proxy may "
        "use and manage it.",
    )
    hosts: Annotated[tuple[Host, ...], Field(strict=False)] = Field(
        default=_SECURITY.hosts,
        description="Names besides `localhost` by which clients without a key may call a listener on this "
        "machine, as through a reverse proxy; any other could be a web page's own (DNS rebinding).",
        examples=[["gpu.example.com"]],
    )
