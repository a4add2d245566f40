"""The keys of a configuration file; descriptions and examples become documentation and hints."""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from ai_proxy.config.fields import (
    ApiKey,
    Command,
    Count,
    CountOrZero,
    Duration,
    EngineName,
    Environment,
    Gpus,
    HealthPath,
    Model,
    Name,
    Port,
    PositiveDuration,
    RuntimeName,
    Text,
    Url,
    Volume,
    Words,
    Workdir,
)
from ai_proxy.config.sections import (
    EngineConfig,
    SecurityConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
    TlsConfig,
)
from ai_proxy.core.service import Healthcheck, Service, StartPolicy

_CORE: dict[str, Any] = {field.name: field.default for field in fields(Service)}


class Defaults(Model):
    """Values for every service that does not set its own."""

    start: Annotated[StartPolicy, Field(strict=False)] = Field(
        default=_CORE["start"],
        description="When to start it: on the first request, which waits meanwhile; by hand; or at once.",
        examples=["on_demand"],
    )
    idle_timeout: Duration = Field(
        default=_CORE["idle_timeout"],
        description="Idle time after which it stops; 0 means never. An open stream is not idle.",
        examples=["10m"],
    )
    start_timeout: PositiveDuration = Field(
        default=_CORE["start_timeout"],
        description="Longest time from start to ready; after that, the start has failed.",
        examples=["5m"],
    )
    stop_grace: Duration = Field(
        default=_CORE["stop_grace"],
        description="Time between the request to stop and the kill.",
        examples=["10s"],
    )
    drain_timeout: Duration = Field(
        default=_CORE["drain_timeout"],
        description="Longest time an unload, restart or reload waits for requests in flight.",
        examples=["30s"],
    )
    response_timeout: Duration = Field(
        default=_CORE["response_timeout"],
        description="Longest wait for the start of a response; 0 means no limit.",
        examples=["10m"],
    )
    stream_idle_timeout: Duration = Field(
        default=_CORE["stream_idle_timeout"],
        description="Longest pause within a response; 0 means no limit.",
        examples=["5m"],
    )
    max_waiting: CountOrZero = Field(
        default=_CORE["max_waiting"],
        description="Maximum number of requests that wait for it.",
        examples=[1000],
    )
    loading: Literal["heartbeat", "hold"] = Field(
        default="heartbeat",
        description="What a streaming client receives while a model loads: comments from 2 s on, or nothing.",
        examples=["hold"],
    )
    inherit_env: bool = Field(
        default=False,
        description="process: whether it inherits all environment variables of the proxy, secrets included. "
        "Otherwise it gets its `env`, and variables for libraries, devices and caches (`PATH`, `HOME`, "
        "`CUDA_*`, ...).",
        examples=[True],
    )


DEFAULTABLE = tuple(Defaults.model_fields)
"""Keys of a service that default to `defaults`."""


def _inherited(name: str) -> Any:
    """Declare the key of a service that overrides a key of `defaults`."""
    field = Defaults.model_fields[name]
    return Field(
        default=None, description=f"{field.description} Default: as in `defaults`.", examples=field.examples
    )


class HealthcheckConfig(Model):
    """A health check that Docker runs inside the container."""

    test: Command = Field(
        description="Command to run in the container; exit code 0 means healthy.",
        examples=[["curl", "-f", "http://localhost:8080/health"]],
    )
    interval: PositiveDuration = Field(
        default=Healthcheck(()).interval, description="Time between two checks."
    )
    timeout: PositiveDuration = Field(
        default=Healthcheck(()).timeout, description="Longest time for one check."
    )
    retries: Count = Field(
        default=Healthcheck(()).retries, description="Consecutive failures that make it unhealthy."
    )
    start_period: Duration = Field(
        default=Healthcheck(()).start_period,
        description="Time after the start during which failures do not count.",
    )


class DockerConfig(Model):
    """How Docker runs the container."""

    memory_mb: Count | None = Field(default=None, description="Memory limit in MB.", examples=[16384])
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="CPU limit in cores.", examples=[4.5]
    )
    pids: Count | None = Field(
        default=None, description="Maximum number of processes and threads.", examples=[4096]
    )
    shm_size_mb: Count | None = Field(default=None, description="Size of /dev/shm in MB.", examples=[1024])
    read_only: bool = Field(default=False, description="Make the container's own file system read-only.")
    cap_drop: Words = Field(default=(), description="Linux capabilities to drop.", examples=[["ALL"]])
    user: Text | None = Field(
        default=None, description="User, or user:group, to run as.", examples=["1000:1000"]
    )
    networks: Words = Field(default=(), description="Docker networks to join.", examples=[["models"]])
    healthcheck: HealthcheckConfig | None = Field(
        default=None, description="A health check that Docker runs."
    )
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When to pull the image."
    )


class ResourceRequirements(Model):
    """Memory that a running instance needs, in MB."""

    min_memory_mb: CountOrZero = Field(default=0, description="Main memory in MB.", examples=[2048])
    vram_required_mb: CountOrZero = Field(
        default=0, description="GPU memory in MB, summed over its GPUs.", examples=[16000]
    )


class TypeConfig(Model):
    """A custom service type: values that services of the type share."""

    extends: Name = Field(
        default="generic", description="The type to extend: any other type.", examples=["vllm"]
    )
    description: str = Field(default="", description="One line for `ai-proxy config types`.")
    engine: EngineName | None = Field(default=None, description="The engine.")
    image: Text | None = Field(
        default=None, description="Container image.", examples=["vllm/vllm-openai:latest"]
    )
    port: Port | None = Field(default=None, description="Port inside the container.", examples=[8000])
    health_path: HealthPath | None = Field(
        default=None, description="Path of the readiness check, or `none`.", examples=["/health"]
    )
    command: Command | None = Field(
        default=None,
        description="Program and arguments of the process; replaces those of the extended type.",
        examples=[["vllm", "serve", "--port", "${port}"]],
    )
    args: Words = Field(
        default=(),
        description="Arguments after those of the extended type, for a process or a container.",
        examples=[["--max-model-len", "8192"]],
    )
    env: Environment = Field(
        default_factory=dict,
        description="Environment variables.",
        examples=[{"VLLM_LOGGING_LEVEL": "WARNING"}],
    )


class ServiceConfig(Model):
    """A backend: what it is, how to run it, and when."""

    type: Text = Field(
        description="A built-in type (see `ai-proxy config types`) or one of your `types`.",
        examples=["llama-cpp-server"],
    )
    runtime: RuntimeName | None = Field(
        default=None,
        description="How to run it. Default: docker for `image`, process for `command`, external for `url`.",
        examples=["docker"],
    )
    models: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Names of its models. Default: its id and the models that the engine lists.",
        examples=[["llama3", "gpt-4o-mini"]],
    )
    aliases: dict[Text, Text] = Field(
        default_factory=dict,
        description="Additional model names, each with the name that its engine knows.",
        examples=[{"gpt-4o": "llama3:70b"}],
    )
    set_params: dict[Text, Any] = Field(
        default_factory=dict,
        description="Parameters set in every request to a model; they override the client's.",
        examples=[{"seed": 1}],
    )
    default_params: dict[Text, Any] = Field(
        default_factory=dict,
        description="Parameters set in requests to a model that do not have them.",
        examples=[{"temperature": 0.7}],
    )
    drop_params: Words = Field(
        default=(),
        description="Parameters removed from every request to a model.",
        examples=[["logit_bias"]],
    )
    api_key: ApiKey | None = Field(
        default=None,
        description="Key sent to the backend in place of the client's; only `${env:NAME}` or `${file:PATH}`.",
        examples=["${env:CLOUD_KEY}"],
    )
    health_path: HealthPath | None = Field(
        default=None,
        description="Path of the readiness check; `none`: a TCP connection is enough. Default: the type's.",
        examples=["/health"],
    )
    image: Text | None = Field(
        default=None,
        description="docker: the container image.",
        examples=["ghcr.io/ggml-org/llama.cpp:server-cuda"],
    )
    command: Command | None = Field(
        default=None,
        description="process: program and arguments, with `${port}` for the port. "
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
        description="process: working directory, relative to this file.",
        examples=["./coder"],
    )
    port: Port | None = Field(
        default=None,
        description="docker: port inside the container. "
        "process: the fixed port it listens on. Default: a free one at each start.",
        examples=[8080],
    )
    host_port: Port | None = Field(
        default=None,
        description="docker: port on 127.0.0.1. Default: a free one at each start.",
        examples=[18080],
    )
    volumes: Annotated[tuple[Volume, ...], Field(strict=False)] = Field(
        default=(),
        description="docker: `host:container[:ro|rw]`; a relative host path is relative to this file.",
        examples=[["/models:/models:ro"]],
    )
    gpus: Gpus | None = Field(
        default=None,
        description="docker, process: `all`, `none`, a count (docker only), or a list of ids.",
        examples=["all"],
    )
    options: dict[Text, Any] = Field(
        default_factory=dict,
        description="Read by the runtime of a plug-in; the built-in runtimes have no options.",
        examples=[{"zone": "b"}],
    )
    docker: DockerConfig | None = Field(default=None, description="docker: how Docker runs the container.")
    url: Url | None = Field(
        default=None,
        description="external: URL of the backend.",
        examples=["https://api.example.com"],
    )
    urls: Annotated[tuple[Url, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="external: URLs of several backends that serve the same models.",
        examples=[["http://10.0.0.5:8000", "http://10.0.0.6:8000"]],
    )
    resource_requirements: ResourceRequirements | None = Field(
        default=None, description="docker, process: memory that a running instance needs."
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
    inherit_env: bool | None = _inherited("inherit_env")
    on_exit: Literal["keep", "stop"] | None = Field(
        default=None,
        description="Whether it outlives the proxy. Default: `keep` for docker, `stop` for process.",
        examples=["stop"],
    )


class Config(Model):
    """A configuration file. Every section is optional."""

    server: ServerConfig = Field(
        default=ServerConfig(), description="Where the proxy listens, and its limits."
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="Detection of engines that the proxy did not start."
    )
    defaults: Defaults = Field(
        default=Defaults(), description="Values for every service that does not set its own."
    )
    telemetry: TelemetryConfig = Field(
        default=TelemetryConfig(), description="Where OpenTelemetry data goes."
    )
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS of all public listeners.")
    store: StoreConfig = Field(
        default=StoreConfig(), description="The database of keys, policy and audit log."
    )
    security: SecurityConfig = Field(
        default=SecurityConfig(), description="What the proxy allows while no API key exists."
    )
    types: dict[Name, TypeConfig] = Field(default_factory=dict, description="Custom service types, by name.")
    services: dict[Name, ServiceConfig] = Field(default_factory=dict, description="The backends, by id.")
