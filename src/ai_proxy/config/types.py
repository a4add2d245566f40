"""Service types: the values that services of one kind share."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ai_proxy.config.schema import TypeConfig
from ai_proxy.core.service import RuntimeKind


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one runtime runs a type.

    Attributes:
        command: Program and its first arguments; in a container it replaces the image's entry point.
        args: Arguments before those of a service.
        address: Arguments that set the listen address; they come last, since vLLM expects its model first and
            they must override the others.
        env: Environment variables.
    """

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    address: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Template:
    """A service type; `${port}` stands for the port the backend listens on.

    Attributes:
        name: Name in the configuration.
        description: One line of text.
        engine: The engine.
        runtime: Default runtime of its services; None when they must choose one.
        image: Container image; None when services must give one.
        port: Port inside the container; None when services must give one.
        health_path: Path of the readiness check; None when a TCP connection is enough.
        url: Default URL of an external service.
        process: How to run it as a process; when it has no command, services must give one.
        docker: How to run it in its image.
        fallback: Replaces the program of `process` when that is not on PATH.
    """

    name: str
    description: str
    engine: str
    runtime: RuntimeKind | None = None
    image: str | None = None
    port: int | None = None
    health_path: str | None = None
    url: str | None = None
    process: Recipe = Recipe()
    docker: Recipe = Recipe()
    fallback: tuple[str, ...] = ()


_ON_LOOPBACK = ("--host", "127.0.0.1", "--port", "${port}")
_IN_CONTAINER = ("--host", "0.0.0.0", "--port", "${port}")  # noqa: S104 - published on loopback only

BUILT_IN: Mapping[str, Template] = MappingProxyType(
    {
        template.name: template
        for template in (
            Template(
                "llama-cpp-server",
                "llama.cpp's own server; GGUF models",
                engine="llamacpp",
                runtime=RuntimeKind.PROCESS,
                image="ghcr.io/ggml-org/llama.cpp:server",
                port=8080,
                health_path="/health",
                process=Recipe(command=("llama-server",), address=_ON_LOOPBACK),
                docker=Recipe(address=_IN_CONTAINER),
                fallback=(sys.executable, "-m", "ai_proxy.engines.llamacpp_embedded"),
            ),
            Template(
                "vllm",
                "vLLM's OpenAI server",
                engine="vllm",
                runtime=RuntimeKind.PROCESS,
                image="vllm/vllm-openai:latest",
                port=8000,
                health_path="/health",
                process=Recipe(command=("vllm", "serve"), address=_ON_LOOPBACK),
                docker=Recipe(address=_IN_CONTAINER),
            ),
            Template(
                "ollama",
                "Ollama, with the models it has pulled",
                engine="ollama",
                runtime=RuntimeKind.PROCESS,
                image="ollama/ollama:latest",
                port=11434,
                health_path="/api/version",
                process=Recipe(command=("ollama", "serve"), env={"OLLAMA_HOST": "127.0.0.1:${port}"}),
                docker=Recipe(env={"OLLAMA_HOST": "0.0.0.0:${port}"}),
            ),
            Template(
                "lm-studio",
                "LM Studio, which runs on its own",
                engine="lmstudio",
                runtime=RuntimeKind.EXTERNAL,
                health_path="/v1/models",
                url="http://127.0.0.1:1234",
            ),
            Template(
                "sglang",
                "SGLang's OpenAI server",
                engine="sglang",
                runtime=RuntimeKind.PROCESS,
                image="lmsysorg/sglang:latest",
                port=30000,
                health_path="/health",
                process=Recipe(command=("python3", "-m", "sglang.launch_server"), address=_ON_LOOPBACK),
                docker=Recipe(command=("python3", "-m", "sglang.launch_server"), address=_IN_CONTAINER),
            ),
            Template("generic", "any HTTP server", engine="generic"),
            Template(
                "openai",
                "a remote service with the OpenAI API",
                engine="openai",
                health_path="/v1/models",
                runtime=RuntimeKind.EXTERNAL,
            ),
        )
    }
)
"""The built-in types."""


def resolve_types(declared: Mapping[str, TypeConfig]) -> dict[str, Template]:
    """Return every type by name; declared types inherit the values of the types they extend.

    Declared types whose base is unknown, or that extend each other in a circle, are omitted.
    """
    known = dict(BUILT_IN)
    waiting = dict(declared)
    while ready := [name for name, own in waiting.items() if own.extends in known and name != own.extends]:
        for name in ready:
            own = waiting.pop(name)
            known[name] = _derive(known[own.extends], name, own)
    return known


def _derive(base: Template, name: str, own: TypeConfig) -> Template:
    process = replace(base.process, command=own.command, args=(), address=()) if own.command else base.process
    return replace(
        base,
        name=name,
        description=own.description or base.description,
        engine=own.engine or base.engine,
        runtime=_implied_runtime(own) or base.runtime,
        image=own.image or base.image,
        port=own.port or base.port,
        health_path=health_path(own.health_path, base.health_path),
        process=_extend(process, own),
        docker=_extend(base.docker, own),
        fallback=() if own.command else base.fallback,
    )


def _implied_runtime(own: TypeConfig) -> RuntimeKind | None:
    if own.image:
        return RuntimeKind.DOCKER
    return RuntimeKind.PROCESS if own.command else None


def _extend(recipe: Recipe, own: TypeConfig) -> Recipe:
    return replace(recipe, args=recipe.args + own.args, env={**recipe.env, **own.env})


def health_path(own: str | None, inherited: str | None) -> str | None:
    """Return the effective health path; `none` in a file means that there is none.

    >>> health_path(None, "/health"), health_path("none", "/health")
    ('/health', None)
    """
    return inherited if own is None else None if own == "none" else own
