"""Every key a configuration file may have. Descriptions and examples become the documentation and hints."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_proxy.config.fields import (
    ApiKey,
    Command,
    Count,
    CountOrZero,
    Domain,
    Duration,
    Email,
    EngineUrl,
    Environment,
    ExistingFile,
    Gpus,
    HealthPath,
    Host,
    Name,
    Port,
    PortOrZero,
    PositiveDuration,
    ReachableHost,
    SecretHeaders,
    Text,
    Url,
    Volume,
    Words,
    Workdir,
)
from ai_proxy.core.service import Healthcheck, RuntimeKind, Service, StartPolicy
from ai_proxy.core.settings import MB, EngineSettings, Limits, ServerSettings, TelemetrySettings, TlsMode

_CORE: dict[str, Any] = {field.name: field.default for field in fields(Service)}
_LIMITS = Limits()
_SERVER = ServerSettings()
_TELEMETRY = TelemetrySettings()
_ENGINES = EngineSettings()


class Model(BaseModel):
    """What all parts share: unknown keys and wrong types are errors, nothing changes once it is read."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the keys only: any value may hold a secret that came from the environment."""
        yield "keys", sorted(self.model_fields_set)


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


class Defaults(Model):
    """What holds for every service that does not say otherwise."""

    start: Annotated[StartPolicy, Field(strict=False)] = Field(
        default=_CORE["start"],
        description="When it is started: by the first request (held meanwhile), by hand, or at once.",
        examples=["on_demand"],
    )
    idle_timeout: Duration = Field(
        default=_CORE["idle_timeout"],
        description="Unused time after which it is stopped; 0 for never. Open streams are use.",
        examples=["10m"],
    )
    start_timeout: PositiveDuration = Field(
        default=_CORE["start_timeout"],
        description="Longest time from start to ready; then the start has failed.",
        examples=["5m"],
    )
    stop_grace: Duration = Field(
        default=_CORE["stop_grace"],
        description="Time between the polite and the forced end.",
        examples=["10s"],
    )
    drain_timeout: Duration = Field(
        default=_CORE["drain_timeout"],
        description="How long an unload, restart or reload waits for requests in flight.",
        examples=["30s"],
    )
    response_timeout: Duration = Field(
        default=_CORE["response_timeout"],
        description="Longest wait for the beginning of a response; 0 for no limit.",
        examples=["10m"],
    )
    stream_idle_timeout: Duration = Field(
        default=_CORE["stream_idle_timeout"],
        description="Longest silence within a response; 0 for no limit.",
        examples=["5m"],
    )
    max_waiting: CountOrZero = Field(
        default=_CORE["max_waiting"], description="Requests that may wait for it at once.", examples=[1000]
    )
    loading: Literal["heartbeat", "hold"] = Field(
        default="heartbeat",
        description="What the client of a stream gets while a model loads: comments from 2 s on, or nothing.",
        examples=["hold"],
    )


DEFAULTABLE = tuple(Defaults.model_fields)
"""Keys of a service that fall back to `defaults`."""


def _inherited(name: str) -> Any:
    """Declare a service's own value for a key of `defaults`."""
    field = Defaults.model_fields[name]
    return Field(
        default=None, description=f"{field.description} Default: as in `defaults`.", examples=field.examples
    )


class HealthcheckConfig(Model):
    """A check that Docker itself runs inside the container."""

    test: Command = Field(
        description="Command to run in the container; exit code 0 is healthy.",
        examples=[["curl", "-f", "http://localhost:8080/health"]],
    )
    interval: PositiveDuration = Field(default=Healthcheck(()).interval, description="Between two checks.")
    timeout: PositiveDuration = Field(default=Healthcheck(()).timeout, description="For one check.")
    retries: Count = Field(
        default=Healthcheck(()).retries, description="Failures in a row that make it unhealthy."
    )
    start_period: Duration = Field(
        default=Healthcheck(()).start_period, description="Time at the start in which failures do not count."
    )


class DockerConfig(Model):
    """How the container is run."""

    memory_mb: Count | None = Field(default=None, description="Memory limit in MB.", examples=[16384])
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="CPU limit in cores.", examples=[4.5]
    )
    pids: Count | None = Field(default=None, description="Limit of processes and threads.", examples=[4096])
    shm_size_mb: Count | None = Field(default=None, description="Size of /dev/shm in MB.", examples=[1024])
    read_only: bool = Field(default=False, description="Make the container's own file system read-only.")
    cap_drop: Words = Field(default=(), description="Linux capabilities to take away.", examples=[["ALL"]])
    user: Text | None = Field(
        default=None, description="User, or user:group, to run as.", examples=["1000:1000"]
    )
    networks: Words = Field(default=(), description="Docker networks to join.", examples=[["models"]])
    healthcheck: HealthcheckConfig | None = Field(
        default=None, description="A check that Docker itself runs."
    )
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When to pull the image."
    )


class ResourceRequirements(Model):
    """What a running instance needs, in MB."""

    min_memory_mb: CountOrZero = Field(default=0, description="Main memory in MB.", examples=[2048])
    vram_required_mb: CountOrZero = Field(
        default=0, description="GPU memory in MB, over all its GPUs.", examples=[16000]
    )


class TypeConfig(Model):
    """A service type of your own: what services of this type need not say themselves."""

    extends: Name = Field(
        default="generic", description="The type to start from; any other type.", examples=["vllm"]
    )
    description: str = Field(default="", description="One line for `ai-proxy config types`.")
    engine: Literal["llamacpp", "vllm", "ollama", "lmstudio", "sglang", "generic", "openai"] | None = Field(
        default=None, description="The software that answers."
    )
    image: Text | None = Field(
        default=None, description="Container image.", examples=["vllm/vllm-openai:latest"]
    )
    port: Port | None = Field(default=None, description="Port inside the container.", examples=[8000])
    health_path: HealthPath | None = Field(
        default=None, description="Path that tells readiness, or `none`.", examples=["/health"]
    )
    command: Command | None = Field(
        default=None,
        description="Program and arguments when run as a process; replaces those of the extended type.",
        examples=[["vllm", "serve", "--port", "${port}"]],
    )
    args: Words = Field(
        default=(),
        description="Arguments after those of the extended type, in a process as in a container.",
        examples=[["--max-model-len", "8192"]],
    )
    env: Environment = Field(
        default_factory=dict,
        description="Environment variables.",
        examples=[{"VLLM_LOGGING_LEVEL": "WARNING"}],
    )


class ServiceConfig(Model):
    """A backend: what it is, how it is run, and when."""

    type: Text = Field(
        description="What it is: a built-in type (see `ai-proxy config types`) or one of your `types`.",
        examples=["llama-cpp-server"],
    )
    runtime: Annotated[RuntimeKind, Field(strict=False)] | None = Field(
        default=None,
        description="How it is run. Default: `image` means docker, `command` process, `url` external.",
        examples=["docker"],
    )
    models: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Names it answers to. Default: its id and what the engine lists.",
        examples=[["llama3", "gpt-4o-mini"]],
    )
    aliases: dict[Text, Text] = Field(
        default_factory=dict,
        description="More names it answers to, each with what its engine is asked for instead.",
        examples=[{"gpt-4o": "llama3:70b"}],
    )
    set_params: dict[Text, Any] = Field(
        default_factory=dict,
        description="Put into every request to a model, in place of what the client says.",
        examples=[{"seed": 1}],
    )
    default_params: dict[Text, Any] = Field(
        default_factory=dict,
        description="Put into every request to a model that does not say otherwise.",
        examples=[{"temperature": 0.7}],
    )
    drop_params: Words = Field(
        default=(),
        description="Taken out of every request to a model.",
        examples=[["logit_bias"]],
    )
    api_key: ApiKey | None = Field(
        default=None,
        description="Sent to the backend in place of the client's key; only `${env:NAME}` or `${file:PATH}`.",
        examples=["${env:CLOUD_KEY}"],
    )
    health_path: HealthPath | None = Field(
        default=None,
        description="Path that tells readiness, or `none` when a connection is enough. Default: the type's.",
        examples=["/health"],
    )
    image: Text | None = Field(
        default=None,
        description="docker: the container image.",
        examples=["ghcr.io/ggml-org/llama.cpp:server-cuda"],
    )
    command: Command | None = Field(
        default=None,
        description="process: program and arguments, `${port}` where the port goes. "
        "docker: replaces the image's entry point. Default: the type's.",
        examples=[["llama-server", "-m", "/models/coder.gguf", "--port", "${port}"]],
    )
    args: Words = Field(
        default=(),
        description="docker, process: arguments after those of the type or of `command`.",
        examples=[["-m", "/models/llama3.gguf", "-c", "8192"]],
    )
    env: Environment = Field(
        default_factory=dict,
        description="docker, process: environment variables.",
        examples=[{"HF_TOKEN": "${env:HF_TOKEN}"}],
    )
    workdir: Workdir | None = Field(
        default=None,
        description="process: folder to run in; a relative one begins beside this file.",
        examples=["./coder"],
    )
    port: Port | None = Field(
        default=None,
        description="docker: port inside the container. "
        "process: the fixed port it listens on; by default a free one is chosen at each start.",
        examples=[8080],
    )
    host_port: Port | None = Field(
        default=None,
        description="docker: port on 127.0.0.1. Default: a free one at each start.",
        examples=[18080],
    )
    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = Field(
        default=(),
        description="docker: `host:container[:ro|rw]`; a relative host path begins beside this file.",
        examples=[["/models:/models:ro"]],
    )
    gpus: Gpus | None = Field(
        default=None,
        description="docker, process: `all`, `none`, a count (docker only), or a list of ids.",
        examples=["all"],
    )
    docker: DockerConfig | None = Field(default=None, description="docker: how the container is run.")
    url: Url | None = Field(
        default=None,
        description="external: address of a backend that runs elsewhere.",
        examples=["https://api.example.com"],
    )
    urls: Annotated[tuple[Url, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="external: addresses of several backends that serve the same.",
        examples=[["http://10.0.0.5:8000", "http://10.0.0.6:8000"]],
    )
    resource_requirements: ResourceRequirements | None = Field(
        default=None, description="docker, process: what a running instance needs."
    )
    start: Annotated[StartPolicy, Field(strict=False)] | None = _inherited("start")
    idle_timeout: Duration | None = _inherited("idle_timeout")
    start_timeout: PositiveDuration | None = _inherited("start_timeout")
    stop_grace: Duration | None = _inherited("stop_grace")
    drain_timeout: Duration | None = _inherited("drain_timeout")
    response_timeout: Duration | None = _inherited("response_timeout")
    stream_idle_timeout: Duration | None = _inherited("stream_idle_timeout")
    max_waiting: CountOrZero | None = _inherited("max_waiting")
    loading: Literal["heartbeat", "hold"] | None = _inherited("loading")
    on_exit: Literal["keep", "stop"] | None = Field(
        default=None,
        description="What becomes of it when the proxy ends. Default: `keep` for docker, `stop` for process.",
        examples=["stop"],
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


class Config(Model):
    """A configuration file. Every part may be left out."""

    server: ServerConfig = Field(
        default=ServerConfig(), description="Where the proxy listens and what it allows."
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="How engines that run by themselves are looked for."
    )
    defaults: Defaults = Field(
        default=Defaults(), description="What holds for every service that does not say otherwise."
    )
    telemetry: TelemetryConfig = Field(default=TelemetryConfig(), description="Where OpenTelemetry is sent.")
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS in front of everything.")
    types: dict[Name, TypeConfig] = Field(
        default_factory=dict, description="Service types of your own, by name."
    )
    services: dict[Name, ServiceConfig] = Field(default_factory=dict, description="The backends, by id.")
