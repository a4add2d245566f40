"""Service types: the values that services of one kind share."""

from collections.abc import Mapping
from dataclasses import replace

from ai_proxy.config.schema import TypeConfig
from ai_proxy.core.service import RuntimeKind
from ai_proxy.core.templates import Recipe, Template
from ai_proxy.engines.catalog import find_engines


def built_in_types() -> dict[str, Template]:
    """Return the types that the installed engines bring along, by name."""
    return {template.name: template for engine in find_engines().values() for template in engine.templates}


def resolve_types(declared: Mapping[str, TypeConfig]) -> dict[str, Template]:
    """Return every type by name; declared types inherit the values of the types they extend.

    Declared types whose base is unknown, or that extend each other in a circle, are omitted.
    """
    known = built_in_types()
    waiting = dict(declared)
    while ready := [name for name, own in waiting.items() if own.extends in known and name != own.extends]:
        for name in ready:
            own = waiting.pop(name)
            known[name] = _derive(known[own.extends], name, own)
    return known


def _derive(base: Template, name: str, own: TypeConfig) -> Template:
    process = replace(base.process, command=own.command, args=(), address=()) if own.command else base.process
    implied = RuntimeKind.DOCKER if own.image else RuntimeKind.PROCESS if own.command else None
    return replace(
        base,
        name=name,
        description=own.description or base.description,
        engine=own.engine or base.engine,
        runtime=implied or base.runtime,
        image=own.image or base.image,
        port=own.port or base.port,
        health_path=health_path(own.health_path, base.health_path),
        process=_extend(process, own),
        docker=_extend(base.docker, own),
        fallback=() if own.command else base.fallback,
    )


def _extend(recipe: Recipe, own: TypeConfig) -> Recipe:
    return replace(recipe, args=recipe.args + own.args, env={**recipe.env, **own.env})


def health_path(own: str | None, inherited: str | None) -> str | None:
    """Return the effective health path; `none` in a file means that there is none.

    >>> health_path(None, "/health"), health_path("none", "/health")
    ('/health', None)
    """
    return inherited if own is None else None if own == "none" else own
