"""Builds the command of a process service."""

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import ProcessLaunch

HINTS = {"llama-server": "install llama.cpp's llama-server, or: pip install 'ai-inference-proxy[llamacpp]'"}
"""What to do about a missing program."""

FALLBACK_NEEDS = {"ai_proxy.engines.llamacpp_embedded": "xllamacpp"}
"""The package that each fallback module needs."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments and environment, ready to execute."""

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str | None


def build_command(
    launch: ProcessLaunch, port: int, env: Mapping[str, str], marks: Mapping[str, str]
) -> Command:
    """Return what to execute.

    Args:
        launch: As declared.
        port: Replaces `${port}`.
        env: The proxy's own environment.
        marks: Variables that the service cannot override.

    Raises:
        RuntimeFailureError: It cannot be executed; says what to do.
    """
    if launch.workdir is not None and not Path(launch.workdir).is_dir():
        raise RuntimeFailureError(f"workdir {launch.workdir} is not a folder: create it or correct 'workdir'")
    merged = {**env, **{name: _fill(value, port) for name, value in launch.env.items()}, **marks}
    arguments = (*choose_program(launch, merged.get("PATH")), *launch.command[1:])
    return Command(tuple(_fill(word, port) for word in arguments), merged, launch.workdir)


def _fill(text: str, port: int) -> str:
    """Insert the port.

    >>> _fill("--listen=127.0.0.1:${port}", 8080)
    '--listen=127.0.0.1:8080'
    """
    return text.replace("${port}", str(port))


def is_installed(package: str) -> bool:
    """Return whether a Python package can be imported."""
    return importlib.util.find_spec(package) is not None


def choose_program(
    launch: ProcessLaunch, path: str | None, installed: Callable[[str], bool] = is_installed
) -> tuple[str, ...]:
    """Return the program, or the words that replace it when it is not on PATH.

    Args:
        launch: As declared.
        path: Folders to look in, as in the variable PATH; None for the proxy's own.
        installed: Returns whether a Python package is installed.

    Raises:
        RuntimeFailureError: Neither is there.
    """
    program = launch.command[0]
    if "/" in program or shutil.which(program, path=path):
        return (program,)
    needs = (FALLBACK_NEEDS[word] for word in launch.fallback if word in FALLBACK_NEEDS)
    if launch.fallback and all(map(installed, needs)):
        return launch.fallback
    raise RuntimeFailureError(
        f"{program} is not on PATH: {HINTS.get(program, 'install it, or give its full path')}"
    )


def explain_failure(command: Command, error: Exception) -> RuntimeFailureError:
    """Return the error that says why a program could not be executed, and what to do."""
    program = command.arguments[0]
    match error:
        case FileNotFoundError():
            reason = "there is no such file, or the interpreter in its first line is missing"
        case PermissionError():
            reason = f"it is not executable: chmod +x {program}, or correct the path"
        case OSError():
            reason = f"{error.strerror or error}: check that it is a program for this machine"
        case _:
            reason = f"{error}: check its command, env and workdir"
    return RuntimeFailureError(f"{program} could not be started: {reason}")
