"""The sections that configure the proxy itself."""

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
    Model,
    PortOrZero,
    PositiveDuration,
    ReachableHost,
    SecretHeaders,
    Text,
    Url,
    Workdir,
)
from ai_proxy.core.settings import (
    MB,
    EngineSettings,
    Limits,
    Retention,
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
_RETENTION = Retention()


class LimitsConfig(Model):
    """Limits for clients of the proxy. A time of 0 means no limit."""

    max_json_body_mb: Count = Field(
        default=_LIMITS.max_json_body // MB,
        description="Largest JSON body in MB, held in memory. Other bodies stream without a limit.",
    )
    max_held_bodies_mb: Count = Field(
        default=_LIMITS.max_held_bodies // MB,
        description="Most memory in MB for the bodies of all requests, from their first byte until their "
        "backends answer. Above it, requests are refused with 503 `overloaded`.",
    )
    max_held_bodies_per_client_mb: Count = Field(
        default=_LIMITS.max_held_bodies_per_client // MB,
        description="Most of that memory for the requests of one API key, or of one address without a key.",
    )
    max_head_kb: Count = Field(
        default=_LIMITS.max_head // 1024,
        description="Largest request head (request line and headers), in KB.",
    )
    max_headers: Count = Field(default=_LIMITS.max_headers, description="Maximum number of header lines.")
    max_connections: Count = Field(
        default=_LIMITS.max_connections, description="Maximum number of open client connections."
    )
    head_timeout: Duration = Field(
        default=_LIMITS.head_timeout,
        description="Longest time from the first byte of a request to the end of its headers.",
    )
    body_timeout: Duration = Field(
        default=_LIMITS.body_timeout, description="Longest pause while a client sends a request body."
    )
    keep_alive_timeout: Duration = Field(
        default=_LIMITS.keep_alive_timeout,
        description="Longest time a connection stays open without a request.",
    )
    write_timeout: Duration = Field(
        default=_LIMITS.write_timeout, description="Longest time a client may leave its response unread."
    )
    connect_timeout: PositiveDuration = Field(
        default=_LIMITS.connect_timeout, description="Longest time to open a connection to a backend."
    )
    shutdown_timeout: Duration = Field(
        default=_LIMITS.shutdown_timeout,
        description="Longest time for requests in flight to finish when the proxy shuts down.",
    )


class DockerEngineConfig(Model):
    """The Docker engine that runs services; by default the one the `docker` command uses."""

    host: EngineUrl | None = Field(
        default=None,
        description="URL of the engine. Default: `DOCKER_HOST`, the current context, or the default socket.",
        examples=["tcp://gpu-box:2376"],
    )
    certificates: Workdir | None = Field(
        default=None,
        description="Folder with ca.pem, cert.pem and key.pem, for TLS, relative to this file. "
        " Default: `DOCKER_CERT_PATH`, if `DOCKER_TLS_VERIFY` is set.",
        examples=["./docker-certificates"],
    )
    address: ReachableHost | None = Field(
        default=None,
        description="Address of the engine's machine, on which it publishes ports and the proxy reaches "
        "services. Default: the host of a remote engine's URL, else 127.0.0.1.",
        examples=["10.0.0.5"],
    )
    network: Text | None = Field(
        default=None,
        description="Network that services join when the proxy itself runs in a container. "
        "Default: the first of the container's networks, by name.",
        examples=["models"],
    )


class ServerConfig(Model):
    """Where the proxy listens. Changes take effect after a restart."""

    host: Host = Field(default=_SERVER.host, description="Address to listen on.", examples=["127.0.0.1"])
    port: PortOrZero = Field(
        default=_SERVER.port, description="TCP port; 0 picks a free one.", examples=[11000]
    )
    ollama_port: PortOrZero | None = Field(
        default=_SERVER.ollama_port,
        description="TCP port on which to serve Ollama's API to its clients; 0 picks a free one. "
        "Default: off.",
        examples=[11434],
    )
    watch: bool = Field(
        default=_SERVER.watch, description="Reload when this file changes; a file with errors is ignored."
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Limits for clients.")
    docker: DockerEngineConfig = Field(
        default=DockerEngineConfig(), description="The Docker engine that runs services."
    )


class EngineConfig(Model):
    """Detection of engines that the proxy did not start. Changes take effect after a restart."""

    detect: bool = Field(
        default=_ENGINES.detect,
        description="Detect llama.cpp, vLLM, Ollama and LM Studio on this machine, at the start and then "
        "every `cache_ttl`, and offer their models.",
    )
    health_latency_threshold_ms: Count = Field(
        default=_ENGINES.health_latency_threshold_ms,
        description="Slowest response of a healthy engine, in milliseconds; a slower engine is degraded.",
    )
    max_network_failures: Count = Field(
        default=_ENGINES.max_network_failures,
        description="Consecutive failed attempts after which an engine counts as unreachable.",
    )
    cache_ttl: PositiveDuration = Field(
        default=_ENGINES.cache_ttl, description="How long a detection stays valid.", examples=["5m"]
    )


class TelemetryConfig(Model):
    """Where OpenTelemetry data goes; `OTEL_*` variables take precedence. Changes need a restart."""

    otlp_endpoint: Url | None = Field(
        default=None,
        description="URL of a collector. Default: nothing is sent.",
        examples=["http://127.0.0.1:4317"],
    )
    otlp_protocol: Literal["grpc", "http/protobuf"] = Field(
        default="grpc",
        description="Protocol of the collector; its default port is 4317 for gRPC and 4318 for HTTP.",
        examples=["grpc"],
    )
    headers: SecretHeaders = Field(
        default_factory=dict,
        description="Headers to send; values only as `${env:NAME}` or `${file:PATH}`.",
        examples=[{"signoz-ingestion-key": "${env:SIGNOZ_KEY}"}],
    )
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=_TELEMETRY.sample_ratio,
        description="Share of the traces started by the proxy that are kept; clients decide about theirs.",
        examples=[0.1],
    )
    service_name: Text = Field(
        default=_TELEMETRY.service_name,
        description="Name of the proxy in traces and metrics.",
        examples=["ai-proxy"],
    )


class AcmeConfig(Model):
    """The certificate authority of mode `https-acme`; using it accepts its terms of service."""

    domains: Annotated[tuple[Domain, ...], Field(strict=False, min_length=1)] = Field(
        description="Domains of the certificate; each must resolve to this machine from the internet.",
        examples=[["gpu.example.com"]],
    )
    email: Email | None = Field(
        default=None, description="Contact address of the account.", examples=["admin@example.com"]
    )
    directory: Url | None = Field(
        default=None,
        description="URL of the authority's directory. Default: Let's Encrypt.",
        examples=["https://ca.lan:9000/acme/acme/directory"],
    )
    staging: bool = Field(
        default=False,
        description="Use Let's Encrypt's staging service: generous limits, but no client trusts it.",
    )
    eab_kid: Text | None = Field(
        default=None,
        description="Key id of an external account, for authorities that require one.",
        examples=["kid-1"],
    )
    eab_hmac_key: ApiKey | None = Field(
        default=None,
        description="Key of the external account; only `${env:NAME}` or `${file:PATH}`.",
        examples=["${env:EAB_KEY}"],
    )
    ca_file: ExistingFile | None = Field(
        default=None,
        description="PEM file of CA certificates that verify the authority's own server, when it is private.",
        examples=["./root-ca.pem"],
    )


class TlsConfig(Model):
    """TLS of all public listeners. Changes take effect after a restart."""

    mode: Annotated[TlsMode, Field(strict=False)] = Field(
        default=TlsMode.OFF,
        description="Source of the certificate: none, your files, a local CA, or a public one.",
        examples=["dev-selfsigned"],
    )
    certificate: ExistingFile | None = Field(
        default=None,
        description="files: PEM file with the server's certificate, followed by its intermediates. "
        "The proxy reloads it when it changes.",
        examples=["./fullchain.pem"],
    )
    key: ExistingFile | None = Field(
        default=None,
        description="files: PEM file with the private key, without a passphrase. Default: `certificate`.",
        examples=["./privkey.pem"],
    )
    names: Annotated[tuple[Host, ...], Field(strict=False)] = Field(
        default=(),
        description="dev-selfsigned: names and addresses besides the machine's own.",
        examples=[["gpu.example.com"]],
    )
    redirect_port: PortOrZero | None = Field(
        default=None,
        description="TCP port that redirects plain HTTP to https. Default: 80 for https-acme, else off.",
        examples=[80],
    )
    acme: AcmeConfig | None = Field(default=None, description="https-acme: the authority and the domains.")


class StoreConfig(Model):
    """The database of keys, policy, audit log and usage. Changes take effect after a restart."""

    url: ApiKey | None = Field(
        default=None,
        description="URL of a database that several proxies share, `postgresql://user:password@host/name`; "
        "only `${env:NAME}` or `${file:PATH}`. Default: an SQLite file in the data directory.",
        examples=["${env:AI_PROXY_STORE_URL}"],
    )
    audit_retention: Duration = Field(
        default=_RETENTION.audit,
        description="How long entries of the audit log are kept; 0 keeps them for ever.",
        examples=["365d"],
    )
    audit_max_entries: Count = Field(
        default=_RETENTION.audit_entries,
        description="Most audit log entries for actions, and as many again for refused requests; "
        "the oldest are removed first.",
    )
    usage_retention: Duration = Field(
        default=_RETENTION.usage,
        description="How long the daily counts of requests and tokens are kept; 0 keeps them for ever.",
        examples=["730d"],
    )
    usage_max_rows: Count = Field(
        default=_RETENTION.usage_rows,
        description="Most daily counts, one for each key and model; the oldest are removed first.",
    )


class SecurityConfig(Model):
    """What the proxy allows while no API key exists. Changes take effect after a restart."""

    allow_unauthenticated: bool = Field(
        default=_SECURITY.allow_unauthenticated,
        description="Listen beyond this machine although no API key exists: anyone who reaches the proxy may "
        "use and manage it.",
    )
    hosts: Annotated[tuple[Host, ...], Field(strict=False)] = Field(
        default=_SECURITY.hosts,
        description="Host names besides `localhost` that a loopback listener accepts from clients without a "
        "key, such as a reverse proxy's; other names are refused to prevent DNS rebinding.",
        examples=[["gpu.example.com"]],
    )
