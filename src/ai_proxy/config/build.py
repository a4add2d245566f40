"""Builds settings and services of the program from a configuration."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from ai_proxy.config.effective import effective
from ai_proxy.config.fields import gpu_devices, parse_url, parse_volume
from ai_proxy.config.schema import Config, DockerConfig, ResourceRequirements, ServiceConfig
from ai_proxy.config.types import built_in_types, health_path, resolve_types
from ai_proxy.core.service import (
    DockerLaunch,
    ExternalLaunch,
    Healthcheck,
    Launch,
    PluginLaunch,
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
    Retention,
    SecuritySettings,
    ServerSettings,
    TelemetrySettings,
    TlsSettings,
)
from ai_proxy.core.templates import Recipe, Template

LIMITS = frozenset(field.name for field in fields(Limits))
"""Limits that have the same name and unit in the configuration."""


def server_settings(config: Config) -> ServerSettings:
    """Return the settings of the proxy itself."""
    server, limits, docker = config.server, config.server.limits, config.server.docker
    return ServerSettings(
        host=server.host,
        port=server.port,
        ollama_port=server.ollama_port,
        watch=server.watch,
        limits=Limits(
            max_head=limits.max_head_kb * 1024,
            max_json_body=limits.max_json_body_mb * MB,
            max_held_bodies=limits.max_held_bodies_mb * MB,
            max_held_bodies_per_client=limits.max_held_bodies_per_client_mb * MB,
            **{name: value for name, value in limits if name in LIMITS},
        ),
        docker=DockerSettings(
            host=docker.host,
            certificates=Path(docker.certificates) if docker.certificates else None,
            address=docker.address,
            network=docker.network,
        ),
    )


def engine_settings(config: Config) -> EngineSettings:
    """Return the settings of engine detection."""
    return EngineSettings(**dict(config.engine))


def telemetry_settings(config: Config) -> TelemetrySettings:
    """Return the OpenTelemetry settings of the configuration; the environment may override them."""
    telemetry = config.telemetry
    return TelemetrySettings(
        otlp_endpoint=telemetry.otlp_endpoint or "",
        otlp_protocol=telemetry.otlp_protocol,
        headers={name: value.get_secret_value() for name, value in telemetry.headers.items()},
        sample_ratio=telemetry.sample_ratio,
        service_name=telemetry.service_name,
    )


def tls_settings(config: Config) -> TlsSettings:
    """Return the TLS settings."""
    tls, acme = config.tls, AcmeSettings()
    if given := config.tls.acme:
        acme = AcmeSettings(
            domains=given.domains,
            email=given.email or "",
            directory=given.directory or "",
            staging=given.staging,
            eab_kid=given.eab_kid or "",
            eab_hmac_key=given.eab_hmac_key.get_secret_value() if given.eab_hmac_key else "",
            ca_file=Path(given.ca_file) if given.ca_file else None,
        )
    return TlsSettings(
        mode=tls.mode,
        certificate=Path(tls.certificate) if tls.certificate else None,
        key=Path(tls.key) if tls.key else None,
        names=tls.names,
        redirect_port=tls.redirect_port,
        acme=acme,
    )


def security_settings(config: Config) -> SecuritySettings:
    """Return what the proxy allows while no API key exists."""
    return SecuritySettings(config.security.allow_unauthenticated, config.security.hosts)


def retention_settings(config: Config) -> Retention:
    """Return how much of the audit log and of usage is kept."""
    store = config.store
    return Retention(
        store.audit_retention, store.audit_max_entries, store.usage_retention, store.usage_max_rows
    )


def store_url(config: Config) -> str | None:
    """Return the URL of the database; None for the SQLite file in the data directory."""
    return config.store.url.get_secret_value() if config.store.url else None


def build_services(config: Config) -> tuple[Service, ...]:
    """Return the services that a configuration declares, in its order.

    Args:
        config: A configuration that `load` has checked.
    """
    filled = effective(config)
    types = resolve_types(config.types)
    return tuple(_service(name, service, types[service.type]) for name, service in filled.services.items())


def detected_services(config: Config, addresses: Mapping[str, str]) -> tuple[Service, ...]:
    """Return an external service for each detected engine, with the defaults of a configuration.

    Args:
        config: Provides the defaults.
        addresses: URLs by engine.

    >>> [(one.id, one.type) for one in detected_services(Config(), {"lmstudio": "http://127.0.0.1:1234"})]
    [('lmstudio', 'lm-studio')]
    """
    types = {template.engine: template.name for template in built_in_types().values()}
    services = {
        engine: ServiceConfig(type=types[engine], runtime=RuntimeKind.EXTERNAL, url=url)
        for engine, url in addresses.items()
        if engine in types
    }
    return build_services(config.model_copy(update={"types": {}, "services": services}))


def _service(name: str, config: ServiceConfig, template: Template) -> Service:
    launch: Launch
    match config.runtime:
        case RuntimeKind.DOCKER:
            launch = _docker(config, template)
        case RuntimeKind.PROCESS:
            launch = _process(config, template)
        case RuntimeKind.EXTERNAL:
            launch = ExternalLaunch(tuple(parse_url(url) for url in config.urls or (config.url or "",)))
        case _:
            launch = PluginLaunch(config.runtime or "", config.options)
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
    """Return a value, or the default of an external service, which the proxy neither starts nor stops."""
    return otherwise if value is None else value


def config_hash(launch: Launch, engine: str, health: str | None, api_key: str | None) -> str:
    """Return a hash that changes exactly when a running instance stops matching its declaration."""
    facts = {
        "runtime": launch.runtime,
        "launch": asdict(launch),
        "engine": engine,
        "health": health,
        "key": hashlib.sha256(api_key.encode()).hexdigest() if api_key else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _process(config: ServiceConfig, template: Template) -> ProcessLaunch:
    recipe = template.process
    return ProcessLaunch(
        command=config.command + config.args if config.command else recipe.command + _args(config, recipe),
        fallback=() if config.command else template.fallback,
        env={**recipe.env, **_visible_gpus(config.gpus), **config.env},
        workdir=config.workdir,
        port=config.port,
        inherit_env=bool(config.inherit_env),
    )


def _args(config: ServiceConfig, recipe: Recipe) -> tuple[str, ...]:
    return recipe.args + config.args + recipe.address


def _visible_gpus(gpus: tuple[str, ...] | None) -> dict[str, str]:
    """Return the environment variable that assigns GPUs to CUDA and ROCm programs.

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
    env = {**recipe.env, **config.env}
    check = docker.healthcheck
    return DockerLaunch(
        image=config.image or "",
        port=port,
        args=_with_port(args, port),
        command=_with_port(config.command or recipe.command, port),
        host_port=config.host_port,
        mounts=tuple(parse_volume(volume, Path()) for volume in config.volumes),
        env={name: value.replace("${port}", str(port)) for name, value in env.items()},
        gpus=config.gpus or (),
        memory_mb=docker.memory_mb,
        cpus=docker.cpus,
        pids=docker.pids,
        shm_size_mb=docker.shm_size_mb,
        read_only=docker.read_only,
        cap_drop=docker.cap_drop,
        user=docker.user,
        networks=docker.networks,
        healthcheck=None
        if check is None
        else Healthcheck(check.test, check.interval, check.timeout, check.retries, check.start_period),
        pull=docker.pull,
    )


def _with_port(words: tuple[str, ...], port: int) -> tuple[str, ...]:
    """Replace `${port}` by a container's port, which is known before the container starts."""
    return tuple(word.replace("${port}", str(port)) for word in words)
