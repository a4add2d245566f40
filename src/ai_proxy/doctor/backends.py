"""Whether the programs and models that services name are here."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ai_proxy.config.build import server_settings
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import DockerLaunch, Mount, ProcessLaunch, Service
from ai_proxy.doctor.finding import Finding, ok, problem
from ai_proxy.doctor.installation import Installation
from ai_proxy.runtimes.docker.access import own_container
from ai_proxy.runtimes.docker.host import machine_of
from ai_proxy.runtimes.process.command import choose_program, is_installed

SUBJECT = "services"
ELSEWHERE = frozenset({"-hff", "--hf-file", "-hffv", "--hf-file-v"})
"""Flags of llama.cpp whose file is in a repository, not on this machine."""


def named_files(words: Sequence[str]) -> tuple[str, ...]:
    """Return the model files that a command names.

    >>> named_files(["llama-server", "-m", "/models/a.gguf", "--mmproj=b.gguf", "-hff", "c.gguf"])
    ('/models/a.gguf', 'b.gguf')
    """
    pairs = zip(("", *words), words, strict=False)
    values = (word.rpartition("=")[2] for before, word in pairs if before not in ELSEWHERE)
    return tuple(value for value in values if value.endswith(".gguf") and "://" not in value)


def on_host(path: str, mounts: Sequence[Mount]) -> str | None:
    """Return where a container's file is on its machine; None when it is in the image or a named volume.

    >>> on_host("/models/a.gguf", [Mount("/srv/models", "/models")])
    '/srv/models/a.gguf'
    >>> on_host("/models/a.gguf", [Mount("volume", "/models")]), on_host("/opt/a.gguf", [Mount("/a", "/b")])
    (None, None)
    """
    inside = PurePosixPath(path)
    for mount in mounts:
        if mount.source.startswith("/") and inside.is_relative_to(mount.target):
            return str(PurePosixPath(mount.source) / inside.relative_to(mount.target))
    return None


def judge_service(service_id: str, program: str, missing: Sequence[str]) -> list[Finding]:
    """Return why a service could not start.

    Args:
        service_id: The service.
        program: What is wrong with its program, and what to do; empty for nothing.
        missing: Model files that it names and that are not there.
    """
    what, _, fix = program.partition(": ")
    found = [problem(SUBJECT, f"{service_id}: {what}", fix or "install it")] if program else []
    fix = "put the file there, or correct the path in the configuration"
    return found + [problem(SUBJECT, f"{service_id}: there is no model file {file}", fix) for file in missing]


def missing_parts(
    services: Sequence[Service], env: Mapping[str, str], exists: Callable[[str], bool], *, containers: bool
) -> list[Finding]:
    """Return why services could not start.

    Args:
        services: As declared.
        env: Of the proxy.
        exists: Tells whether a file is there.
        containers: Whether containers' files are on this machine, and can be seen.
    """
    found: list[Finding] = []
    for service in services:
        match service.launch:
            case ProcessLaunch() as launch:
                missing = [file for file in _files(launch) if not exists(file)]
                found += judge_service(service.id, _program_trouble(launch, env, exists), missing)
            case DockerLaunch() as launch if containers:
                files = (on_host(file, launch.mounts) for file in named_files(launch.args))
                found += judge_service(service.id, "", [file for file in files if file and not exists(file)])
            case _:
                pass
    return found


def _files(launch: ProcessLaunch) -> Iterator[str]:
    for name in named_files(launch.command[1:]):
        yield str(Path(launch.workdir or "") / name)


def _program_trouble(launch: ProcessLaunch, env: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    program = launch.command[0]
    if "/" in program:
        path = str(Path(launch.workdir or "") / program)
        return "" if exists(path) else f"there is no program {program}: install it, or correct the path"
    try:
        choose_program(launch, launch.env.get("PATH", env.get("PATH")))
    except RuntimeFailureError as error:
        return error.detail
    return ""


def find_missing(
    services: Sequence[Service], env: Mapping[str, str], docker_host: str | None
) -> list[Finding]:
    """Look for what services name on this machine.

    Args:
        services: As declared.
        env: Of the proxy.
        docker_host: URL of the Docker engine, as configured; None for what the environment says.
    """
    host = docker_host or env.get("DOCKER_HOST")
    containers = machine_of(host) is None and own_container() is None
    return missing_parts(services, env, os.path.exists, containers=containers)


async def check_backends(installation: Installation) -> Sequence[Finding]:
    """Look for the programs and the models of every service."""
    host = server_settings(installation.config).docker.host
    services = installation.services
    found = await asyncio.to_thread(find_missing, services, installation.env, host)
    return found or [ok(SUBJECT, "the programs and models that they name are here")]


async def check_llama_server(installation: Installation) -> Sequence[Finding]:
    """Look for llama.cpp's server."""
    return [judge_llama_server(shutil.which("llama-server", path=installation.env.get("PATH")))]


def judge_llama_server(path: str | None, installed: Callable[[str], bool] = is_installed) -> Finding:
    """Return what serves models where a service names no command; that none is there harms only such ones."""
    if path:
        return ok("llama-server", f"is {path}")
    if installed("xllamacpp"):
        return ok("llama-server", "is not on PATH; the llama.cpp that comes with ai-proxy takes its place")
    hint = "pip install 'ai-inference-proxy[llamacpp]' brings one along"
    return ok("llama-server", f"neither on PATH nor installed with ai-proxy; {hint}")
