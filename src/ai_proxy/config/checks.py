"""Checks across keys and services."""

from collections.abc import Iterator, Mapping, Set

from ai_proxy.config.effective import APPLIES, PLUGIN, applies, runtime_of
from ai_proxy.config.problems import Fault, KeyPath, did_you_mean, render_path
from ai_proxy.config.schema import Config, ServiceConfig
from ai_proxy.config.types import built_in_types, resolve_types
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.settings import TlsMode
from ai_proxy.core.templates import Template

_DECISIVE = ("type", "runtime", "image", "command", "url", "urls")
"""Keys that determine the runtime: while one of them is faulty, checks that depend on it are skipped."""

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    RuntimeKind.DOCKER: ("image", "port"),
    RuntimeKind.PROCESS: ("command",),
    RuntimeKind.EXTERNAL: ("url",),
}


def check(config: Config, faulty: Set[KeyPath]) -> list[Fault]:
    """Return the faults of a configuration whose individual values are valid.

    Args:
        config: The configuration without its faulty parts.
        faulty: Paths of the faulty parts; faults that only follow from them are not reported.
    """
    faults = [
        *_types(config),
        *_unknown_types(config, faulty),
        *_ports(config),
        *_models(config),
        *_tls(config, faulty),
    ]
    types = resolve_types(config.types)
    for name, service in config.services.items():
        decisive = {("services", name, key) for key in _DECISIVE}
        unsure = any(path[:3] in decisive or path[:2] == ("types", service.type) for path in faulty)
        if service.type in types and not unsure:
            faults += _service(("services", name), service, types[service.type])
    return [fault for fault in faults if fault.path not in faulty]


def _types(config: Config) -> Iterator[Fault]:
    """Custom types need names of their own, known bases, and no circles."""
    built_in, resolved = built_in_types(), resolve_types(config.types)
    for name, declared in config.types.items():
        path: KeyPath = ("types", name)
        if name in built_in:
            yield Fault(path, "this type is built in", "choose another name", on_key=True)
        elif declared.extends not in config.types and declared.extends not in built_in:
            hint = did_you_mean(declared.extends, resolved, "see 'ai-proxy config types'")
            yield Fault((*path, "extends"), "there is no type {value}", hint)
        elif name not in resolved and not _has_unknown_base(name, config):
            yield Fault(
                (*path, "extends"), "the types extend each other in a circle", "extend a built-in type"
            )


def _has_unknown_base(name: str, config: Config) -> bool:
    seen: set[str] = set()
    while name in config.types and name not in seen:
        seen.add(name)
        name = config.types[name].extends
    return name not in seen and name not in built_in_types()


def _unknown_types(config: Config, faulty: Set[KeyPath]) -> Iterator[Fault]:
    known = {
        *built_in_types(),
        *config.types,
        *(str(path[1]) for path in faulty if path[:1] == ("types",) and path[1:]),
    }
    for name, service in config.services.items():
        if service.type not in known:
            hint = did_you_mean(service.type, known, f"use one of {', '.join(sorted(known))}")
            yield Fault(("services", name, "type"), "there is no type {value}", hint)


def _ports(config: Config) -> Iterator[Fault]:
    """Two listeners cannot share a port of this machine."""
    taken: dict[int, KeyPath] = {config.server.port: ("server", "port")} if config.server.port else {}
    types = resolve_types(config.types)
    for name, service in config.services.items():
        template = types.get(service.type)
        is_process = template is not None and runtime_of(service, template) == RuntimeKind.PROCESS
        key = "port" if is_process else "host_port"
        port: int | None = getattr(service, key)
        path: KeyPath = ("services", name, key)
        if port is None:
            continue
        if port in taken:
            yield Fault(
                path,
                "port {value} is already used by " + render_path(taken[port]),
                f"use another, or remove {key} to get a free one at each start",
            )
        taken.setdefault(port, path)


def _models(config: Config) -> Iterator[Fault]:
    """Two services cannot have the same model name."""
    answered: dict[str, str] = {}
    for name, service in config.services.items():
        path: KeyPath = ("services", name)
        declared: list[tuple[str, KeyPath]] = [
            (model, (*path, "models", index)) for index, model in enumerate(service.models or ())
        ]
        declared += [(alias, (*path, "aliases", alias)) for alias in service.aliases]
        for model, where in declared or [(name, path)]:
            if model in answered:
                shown = "{value}" if declared else repr(name)
                yield Fault(
                    where,
                    f"service {answered[model]} already has the model name {shown}",
                    "rename or remove one of them",
                    on_key=not declared,
                )
            answered.setdefault(model, name)


def _tls(config: Config, faulty: Set[KeyPath]) -> Iterator[Fault]:
    """Each mode needs its keys, and keys that depend on each other come together."""
    tls, acme = config.tls, config.tls.acme
    if any(path[:1] == ("tls",) for path in faulty):
        return
    if tls.mode is TlsMode.FILES and not tls.certificate:
        yield Fault(
            ("tls", "certificate"), "is missing: mode files needs it", "add it: certificate: ./fullchain.pem"
        )
    if tls.mode is TlsMode.HTTPS_ACME and not acme:
        hint = "add it: acme: {domains: [gpu.example.com]}"
        yield Fault(("tls", "acme"), "is missing: mode https-acme needs it", hint)
    if tls.redirect_port and tls.redirect_port == config.server.port:
        yield Fault(("tls", "redirect_port"), "port {value} is already used by server.port", "use another")
    if tls.redirect_port is not None and not config.server.port:
        hint = "set server.port to a fixed port"
        yield Fault(("tls", "redirect_port"), "cannot redirect to a port that is picked at the start", hint)
    if acme and acme.directory and acme.staging:
        hint = "remove one of them: staging is Let's Encrypt's"
        yield Fault(("tls", "acme", "staging"), "cannot be combined with directory", hint, on_key=True)
    if acme and bool(acme.eab_kid) != bool(acme.eab_hmac_key):
        there, absent = ("eab_kid", "eab_hmac_key") if acme.eab_kid else ("eab_hmac_key", "eab_kid")
        yield Fault(("tls", "acme", there), f"needs {absent}", f"add {absent}", on_key=True)


def _service(path: KeyPath, config: ServiceConfig, template: Template) -> Iterator[Fault]:
    """A service has a runtime, only keys that apply to it, and all keys that it needs."""
    runtime = runtime_of(config, template)
    if runtime is None:
        hint = "add image (docker), command (process) or url (external)"
        yield Fault(path, "has no runtime", hint, on_key=True)
        return
    if runtime == RuntimeKind.SWARM:
        hint = "use docker, process or external"
        yield Fault((*path, "runtime"), "the swarm runtime is not available yet", hint)
        return
    for key in ServiceConfig.model_fields:
        if key in config.model_fields_set and not applies(key, runtime):
            others = " or ".join(sorted(APPLIES[key] - {PLUGIN}) or [PLUGIN])
            yield Fault(
                (*path, key),
                f"does not apply to a service of runtime {runtime}",
                f"remove it; it applies to {others}",
                on_key=True,
            )
    examples = {
        "image": (config.image or template.image, "ghcr.io/ggml-org/llama.cpp:server"),
        "port": (config.port or template.port, "8080, the port inside the container"),
        "command": (config.command or template.process.command, '["my-server", "--port", "${port}"]'),
        "url": (config.url or config.urls or template.url, "http://127.0.0.1:8000"),
    }
    for key in _REQUIRED.get(runtime, ()):
        value, example = examples[key]
        if not value:
            missing = f"is missing: type {template.name} has none for runtime {runtime}"
            yield Fault((*path, key), missing, f"add it, for example {key}: {example}")
    if config.url and config.urls:
        yield Fault((*path, "url"), "url and urls are both given", "keep one of them", on_key=True)
    if runtime == RuntimeKind.PROCESS:
        yield from _process(path, config, template)


def _process(path: KeyPath, config: ServiceConfig, template: Template) -> Iterator[Fault]:
    """A process needs a port, passed by the proxy or known to it, and GPUs by their ids."""
    recipe = template.process
    command = config.command or recipe.command + recipe.args + recipe.address
    words = (*command, *config.args, *recipe.env.values(), *config.env.values())
    if command and not config.port and not any("${port}" in word for word in words):
        yield Fault(
            (*path, "command" if config.command else "args"),
            "the backend is not given a port to listen on",
            'write "${port}" where its port goes, or set port to the one it always uses',
        )
    if config.gpus and config.gpus[0].isdigit():
        yield Fault((*path, "gpus"), "a process needs GPU ids, not a number of GPUs", 'list them: ["0", "1"]')
