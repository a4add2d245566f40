"""The effective configuration: types and defaults filled in."""

from collections.abc import Mapping

from ai_proxy.config.schema import DEFAULTABLE, Config, ServiceConfig
from ai_proxy.config.types import resolve_types
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import Template

EXTERNAL_START_TIMEOUT = 10.0
"""Seconds a request waits for an external backend that does not respond; the proxy starts nothing there."""

_DOCKER = frozenset({RuntimeKind.DOCKER})
_PROCESS = frozenset({RuntimeKind.PROCESS})
_EXTERNAL = frozenset({RuntimeKind.EXTERNAL})
_OURS = _DOCKER | _PROCESS

PLUGIN = "a runtime of a plug-in"
"""Stands for every runtime that is not built in."""

APPLIES: Mapping[str, frozenset[str]] = {
    "image": _DOCKER,
    "host_port": _DOCKER,
    "volumes": _DOCKER,
    "docker": _DOCKER,
    "workdir": _PROCESS,
    "inherit_env": _PROCESS,
    "url": _EXTERNAL,
    "urls": _EXTERNAL,
    "options": frozenset({PLUGIN}),
    **dict.fromkeys(("command", "args", "env", "port", "gpus"), _OURS),
    **dict.fromkeys(
        ("resource_requirements", "start", "idle_timeout", "stop_grace", "on_exit"), _OURS | {PLUGIN}
    ),
}
"""The runtimes that a service's key applies to; keys not listed apply to all."""


def applies(key: str, runtime: str) -> bool:
    """Return whether a key applies to services of a runtime."""
    return key not in APPLIES or (runtime if runtime in RuntimeKind else PLUGIN) in APPLIES[key]


def runtime_of(service: ServiceConfig, template: Template) -> str | None:
    """Return a service's runtime, explicit or implied by its other keys; None when nothing implies it."""
    if service.runtime:
        return service.runtime
    if service.image:
        return RuntimeKind.DOCKER
    if service.command:
        return RuntimeKind.PROCESS
    if service.url or service.urls:
        return RuntimeKind.EXTERNAL
    return template.runtime


def effective(config: Config) -> Config:
    """Return the configuration with the values that services take from types and defaults.

    The program and arguments of a type are not copied: they depend on the runtime.
    """
    types = resolve_types(config.types)
    services = {
        name: _effective_service(service, types[service.type], config)
        for name, service in config.services.items()
    }
    return config.model_copy(update={"services": services})


def _effective_service(service: ServiceConfig, template: Template, config: Config) -> ServiceConfig:
    runtime = runtime_of(service, template)
    if runtime is None:
        raise ValueError("a service has no runtime; check() rejects it")
    filled: dict[str, object] = {
        key: getattr(config.defaults, key) for key in DEFAULTABLE if applies(key, runtime)
    }
    filled |= {"runtime": runtime, "health_path": template.health_path or "none"}
    match runtime:
        case RuntimeKind.DOCKER:
            filled |= {"image": template.image, "port": template.port, "on_exit": "keep"}
        case RuntimeKind.EXTERNAL:
            filled |= {"start_timeout": EXTERNAL_START_TIMEOUT}
            filled |= {} if service.urls else {"url": template.url}
        case _:
            filled |= {"on_exit": "stop"}
    return service.model_copy(
        update={key: value for key, value in filled.items() if getattr(service, key) is None}
    )
