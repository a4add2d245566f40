"""Checks of the backends: programs and model files of services, and engines on this machine."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ai_proxy.config.build import engine_settings, server_settings
from ai_proxy.core.detection import RUNNING, Detection, EngineState
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import DockerLaunch, Mount, ProcessLaunch, Service
from ai_proxy.doctor.finding import Finding, ok, problem, shorten, warning
from ai_proxy.doctor.installation import Installation
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.extras import how_to_install
from ai_proxy.runtimes.docker.access import machine_of, own_container
from ai_proxy.runtimes.process.command import choose_program, is_installed

SUBJECT, ENGINES = "services", "engines"
OFF = frozenset({"0", "false", "no", "off"})
"""Values of `AI_PROXY_DETECT` that turn detection off."""
ELSEWHERE = frozenset({"-hff", "--hf-file", "-hffv", "--hf-file-v"})
"""Flags of llama.cpp whose file is in a remote repository."""


def named_files(words: Sequence[str]) -> tuple[str, ...]:
    """Return the model files that a command names.

    >>> named_files(["llama-server", "-m", "/models/a.gguf", "--mmproj=b.gguf", "-hff", "c.gguf"])
    ('/models/a.gguf', 'b.gguf')
    """
    pairs = zip(("", *words), words, strict=False)
    values = (word.rpartition("=")[2] for before, word in pairs if before not in ELSEWHERE)
    return tuple(value for value in values if value.endswith(".gguf") and "://" not in value)


def on_host(path: str, mounts: Sequence[Mount]) -> str | None:
    """Return the host path of a container's file; None when it is in the image or a named volume.

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


def missing_parts(
    services: Sequence[Service], env: Mapping[str, str], exists: Callable[[str], bool], *, containers: bool
) -> list[Finding]:
    """Return the programs and model files whose absence keeps services from starting.

    Args:
        services: The declared services.
        env: Environment of the proxy.
        exists: Returns whether a file exists.
        containers: Whether containers mount files of this machine.
    """
    found: list[Finding] = []
    for service in services:
        files: list[str] = []
        match service.launch:
            case ProcessLaunch() as launch:
                what, _, fix = _program_error(launch, env, exists).partition(": ")
                if what:
                    found.append(problem(SUBJECT, f"{service.id}: {what}", fix or "install it"))
                files = [str(Path(launch.workdir or "") / file) for file in named_files(launch.command[1:])]
            case DockerLaunch() as launch if containers:
                files = [path for file in named_files(launch.args) if (path := on_host(file, launch.mounts))]
            case _:
                pass
        fix = "put the file there, or correct the path in the configuration"
        found += [
            problem(SUBJECT, f"{service.id}: there is no model file {file}", fix)
            for file in files
            if not exists(file)
        ]
    return found


def _program_error(launch: ProcessLaunch, env: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    """Return what is wrong with a program, and what to do; empty for nothing."""
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
    """Return the programs and model files that services name and this machine lacks.

    Args:
        services: The declared services.
        env: Environment of the proxy.
        docker_host: URL of the Docker engine in the configuration; None to use the environment's.
    """
    host = docker_host or env.get("DOCKER_HOST")
    containers = machine_of(host) is None and own_container() is None
    return missing_parts(services, env, os.path.exists, containers=containers)


async def check_backends(installation: Installation) -> Sequence[Finding]:
    """Check the programs and model files of every service."""
    host = server_settings(installation.config).docker.host
    services = installation.services
    found = await asyncio.to_thread(find_missing, services, installation.env, host)
    return found or [ok(SUBJECT, "all their programs and model files exist")]


async def check_llama_server(installation: Installation) -> Sequence[Finding]:
    """Check which llama.cpp server runs services without a command."""
    return [classify_llama_server(shutil.which("llama-server", path=installation.env.get("PATH")))]


def classify_llama_server(path: str | None, installed: Callable[[str], bool] = is_installed) -> Finding:
    """Return which llama.cpp server is available; only services without a command need it."""
    if path:
        return ok("llama-server", f"found at {path}")
    if installed("xllamacpp"):
        return ok("llama-server", "not on PATH; the embedded llama.cpp is used instead")
    return ok("llama-server", f"neither on PATH nor embedded; to embed one: {how_to_install('llamacpp')}")


async def check_engines(installation: Installation) -> Sequence[Finding]:
    """Detect engines that the proxy did not start, unless detection is off."""
    import aiohttp

    from ai_proxy.engines.catalog import find_engines
    from ai_proxy.engines.detect.detector import Detector, MemoryCache

    settings = engine_settings(installation.config)
    if not settings.detect or installation.env.get("AI_PROXY_DETECT", "").lower() in OFF:
        return [ok(ENGINES, "detection is off")]
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:
        cache = MemoryCache(clock, settings.cache_ttl)
        detector = Detector(
            find_engines().values(), session, clock, cache, settings, installation.env, timeout=1.5
        )
        return classify_engines(await detector.detect())


def classify_engines(detections: Sequence[Detection]) -> Sequence[Finding]:
    """Return a finding for each engine that is installed or running."""
    found: list[Finding] = []
    for one in detections:
        if one.state in RUNNING:
            version = f" {one.version}" if one.version else ""
            found.append(ok(ENGINES, f"{one.title}{version} at {one.address}, {len(one.models)} models"))
        elif one.state is EngineState.INSTALLED_ONLY:
            found.append(ok(ENGINES, f"{one.title} is installed but not running"))
        elif one.state is not EngineState.ABSENT:
            fix = "read its log, or stop the other program on its port"
            found.append(warning(ENGINES, f"{one.title} at {one.address}: {shorten(one.detail)}", fix))
    return found or [ok(ENGINES, "no other engines run on this machine")]
