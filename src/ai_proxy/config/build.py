"""From the configuration to what the rest of the program works with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ai_proxy.config.effective import effective
from ai_proxy.config.fields import gpu_devices, parse_url, parse_volume
from ai_proxy.config.schema import Config, DockerConfig, ResourceRequirements, ServiceConfig
from ai_proxy.config.sections import AcmeConfig
from ai_proxy.config.types import Recipe, Template, health_path, resolve_types
from ai_proxy.core.service import (
    DockerLaunch,
    ExternalLaunch,
    Healthcheck,
    Launch,
    ProcessLaunch,
    Resources,
    RuntimeKind,
    Service,
    StartPolicy,
)
from ai_proxy.core.settings import (
    MB,
    AcmeSettings,
    DockerSettings,
    EngineSettings,
    Limits,
    SecuritySettings,
    ServerSettings,
    TelemetrySettings,
    TlsSettings,
)


def server_settings(config: Config) -> ServerSettings:
    """Return how the proxy itself is to behave."""
    server, limits = config.server, config.server.limits
    return ServerSettings(
        host=server.host,
        port=server.port,
        ollama_port=server.ollama_port,
        watch=server.watch,
        limits=Limits(
            max_head=limits.max_head_kb * 1024,
            max_headers=limits.max_headers,
            max_json_body=limits.max_json_body_mb * MB,
            max_connections=limits.max_connections,
            head_timeout=limits.head_timeout,
            body_timeout=limits.body_timeout,
            keep_alive_timeout=limits.keep_alive_timeout,
            write_timeout=limits.write_timeout,
            connect_timeout=limits.connect_timeout,
            shutdown_timeout=limits.shutdown_timeout,
        ),
        docker=_docker_settings(config),
    )


def _docker_settings(config: Config) -> DockerSettings:
    docker = config.server.docker
    folder = Path(docker.certificates) if docker.certificates else None
    return DockerSettings(docker.host, folder, docker.address, docker.network)


def engine_settings(config: Config) -> EngineSettings:
    """Return how engines that run by themselves are to be looked for."""
    engine = config.engine
    return EngineSettings(
        detect=engine.detect,
        health_latency_threshold_ms=engine.health_latency_threshold_ms,
        max_network_failures=engine.max_network_failures,
        cache_ttl=engine.cache_ttl,
    )


def telemetry_settings(config: Config) -> TelemetrySettings:
    """Return where OpenTelemetry is to be sent, as far as the configuration says."""
    telemetry = config.telemetry
    return TelemetrySettings(
        otlp_endpoint=telemetry.otlp_endpoint or "",
        otlp_protocol=telemetry.otlp_protocol,
        headers={name: value.get_secret_value() for name, value in telemetry.headers.items()},
        sample_ratio=telemetry.sample_ratio,
        service_name=telemetry.service_name,
    )


def tls_settings(config: Config) -> TlsSettings:
    """Return how clients are to be served over TLS."""
    tls = config.tls
    return TlsSettings(
        mode=tls.mode,
        certificate=Path(tls.certificate) if tls.certificate else None,
        key=Path(tls.key) if tls.key else None,
        names=tls.names,
        redirect_port=tls.redirect_port,
        acme=_acme_settings(tls.acme) if tls.acme else AcmeSettings(),
    )


def security_settings(config: Config) -> SecuritySettings:
    """Return who may call while there is no API key."""
    return SecuritySettings(config.security.allow_unauthenticated, config.security.hosts)


def store_url(config: Config) -> str | None:
    """Return the URL of the database where what lasts is kept; None for the one in the data directory."""
    return config.store.url.get_secret_value() if config.store.url else None


def _acme_settings(acme: AcmeConfig) -> AcmeSettings:
    return AcmeSettings(
        domains=acme.domains,
        email=acme.email or "",
        directory=acme.directory or "",
        staging=acme.staging,
        eab_kid=acme.eab_kid or "",
        eab_hmac_key=acme.eab_hmac_key.get_secret_value() if acme.eab_hmac_key else "",
        ca_file=Path(acme.ca_file) if acme.ca_file else None,
    )


def build_services(config: Config) -> tuple[Service, ...]:
    """Return the services that a configuration declares, in its order.

    Args:
        config: As loaded, and so without faults.
    """
    filled = effective(config)
    types = resolve_types(config.types)
    return tuple(_service(name, service, types[service.type]) for name, service in filled.services.items())


def _service(name: str, config: ServiceConfig, template: Template) -> Service:
    launch = _launch(config, template)
    api_key = config.api_key.get_secret_value() if config.api_key else None
    health = health_path(config.health_path, template.health_path)
    needs = config.resource_requirements or ResourceRequirements()
    return Service(
        id=name,
        type=config.type,
        engine=template.engine,
        launch=launch,
        config_hash=config_hash(launch, template.engine, health, api_key),
        start=_given(config.start, StartPolicy.ALWAYS),
        models=config.models or (),
        api_key=api_key,
        health_path=health,
        idle_timeout=_given(config.idle_timeout, 0.0),
        start_timeout=_given(config.start_timeout, 0.0),
        stop_grace=_given(config.stop_grace, 0.0),
        drain_timeout=_given(config.drain_timeout, 0.0),
        response_timeout=_given(config.response_timeout, 0.0),
        stream_idle_timeout=_given(config.stream_idle_timeout, 0.0),
        max_waiting=_given(config.max_waiting, 0),
        keep_on_exit=config.on_exit == "keep",
        resources=Resources(needs.min_memory_mb, needs.vram_required_mb),
        aliases=config.aliases,
        set_params=config.set_params,
        default_params=config.default_params,
        drop_params=config.drop_params,
        heartbeat=config.loading != "hold",
    )


def _given[T](value: T | None, otherwise: T) -> T:
    """Return a value, or what holds for an external service, where nothing is started or stopped."""
    return otherwise if value is None else value


def config_hash(launch: Launch, engine: str, health: str | None, api_key: str | None) -> str:
    """Return a hash that changes exactly when a running instance no longer matches its declaration."""
    facts = {
        "runtime": launch.runtime,
        "launch": asdict(launch),
        "engine": engine,
        "health": health,
        "key": hashlib.sha256(api_key.encode()).hexdigest() if api_key else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _launch(config: ServiceConfig, template: Template) -> Launch:
    match config.runtime:
        case RuntimeKind.DOCKER:
            return _docker(config, template)
        case RuntimeKind.PROCESS:
            return _process(config, template)
        case _:
            return ExternalLaunch(tuple(parse_url(url) for url in config.urls or (config.url or "",)))


def _process(config: ServiceConfig, template: Template) -> ProcessLaunch:
    recipe = template.process
    return ProcessLaunch(
        command=config.command + config.args if config.command else recipe.command + _args(config, recipe),
        fallback=() if config.command else template.fallback,
        env={**recipe.env, **_visible_gpus(config.gpus), **config.env},
        workdir=config.workdir,
        port=config.port,
    )


def _args(config: ServiceConfig, recipe: Recipe) -> tuple[str, ...]:
    return recipe.args + config.args + recipe.address


def _visible_gpus(gpus: tuple[str, ...] | None) -> dict[str, str]:
    """Return the variable by which CUDA and ROCm programs are given GPUs.

    >>> _visible_gpus(("device=0", "device=2")), _visible_gpus(()), _visible_gpus(("all",))
    ({'CUDA_VISIBLE_DEVICES': '0,2'}, {'CUDA_VISIBLE_DEVICES': '-1'}, {})
    """
    if gpus is None or gpus == ("all",):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu_devices(gpus)) or "-1"}


def _docker(config: ServiceConfig, template: Template) -> DockerLaunch:
    recipe, docker = template.docker, config.docker or DockerConfig()
    port = config.port or 0
    args = config.args if config.command else _args(config, recipe)
    return DockerLaunch(
        image=config.image or "",
        port=port,
        args=_with_port(args, port),
        command=_with_port(config.command or recipe.command, port),
        host_port=config.host_port,
        mounts=tuple(parse_volume(volume, Path()) for volume in config.volumes),
        env=_env_with_port({**recipe.env, **config.env}, port),
        gpus=config.gpus or (),
        memory_mb=docker.memory_mb,
        cpus=docker.cpus,
        pids=docker.pids,
        shm_size_mb=docker.shm_size_mb,
        read_only=docker.read_only,
        cap_drop=docker.cap_drop,
        user=docker.user,
        networks=docker.networks,
        healthcheck=_healthcheck(docker),
        pull=docker.pull,
    )


def _healthcheck(docker: DockerConfig) -> Healthcheck | None:
    check = docker.healthcheck
    if check is None:
        return None
    return Healthcheck(check.test, check.interval, check.timeout, check.retries, check.start_period)


def _with_port(words: tuple[str, ...], port: int) -> tuple[str, ...]:
    """Put a container's port, which is known before it starts, where `${port}` stands."""
    return tuple(word.replace("${port}", str(port)) for word in words)


def _env_with_port(env: Mapping[str, str], port: int) -> dict[str, str]:
    return {name: value.replace("${port}", str(port)) for name, value in env.items()}
