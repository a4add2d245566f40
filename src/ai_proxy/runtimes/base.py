"""What the proxy knows of a runtime before it is opened; a new runtime adds one descriptor."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.core.ports import Runtime
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """What a runtime is opened with.

    Attributes:
        folder: Of this proxy instance, for the owner only; a runtime keeps its files in a folder in it.
        owner: Tells what this proxy runs from what other proxies run.
        version: Of the proxy.
        docker: The section `docker` of the configuration.
        background: Owns the work that goes on while the runtime is open.
    """

    folder: Path
    owner: str
    version: str
    docker: DockerSettings
    background: Background


@dataclass(frozen=True, slots=True)
class RuntimeDescriptor:
    """A runtime by its name.

    Attributes:
        name: As services declare it: `docker`.
        open: Returns the runtime; nothing is asked of the outside world before its first use. Leaving the
            context lets go of everything and leaves it running.
    """

    name: str
    open: Callable[[RuntimeContext], AbstractAsyncContextManager[Runtime]]
