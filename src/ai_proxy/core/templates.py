"""Service types: the values that services of one kind share."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    runtime: str | None = None
    image: str | None = None
    port: int | None = None
    health_path: str | None = None
    url: str | None = None
    process: Recipe = Recipe()
    docker: Recipe = Recipe()
    fallback: tuple[str, ...] = ()


ON_LOOPBACK = ("--host", "127.0.0.1", "--port", "${port}")
"""Arguments by which many engines listen as a process."""

IN_CONTAINER = ("--host", "0.0.0.0", "--port", "${port}")  # noqa: S104 - published on loopback only
"""Arguments by which many engines listen in a container."""
