"""Builds the command of a process service."""

import importlib.util
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import ProcessLaunch
from ai_proxy.platform.extras import how_to_install

FALLBACK_NEEDS = {"ai_proxy.engines.llamacpp_embedded": "xllamacpp"}
"""The package that each fallback module needs."""


BASE = re.compile(
    r"""
    PATH | HOME | USER | LOGNAME | SHELL | TERM | TZ | TMPDIR | TMP | TEMP | LANG | LANGUAGE | LC_.* | XDG_.*
    | LD_LIBRARY_PATH | LD_PRELOAD | DYLD_LIBRARY_PATH | DYLD_FALLBACK_LIBRARY_PATH
    | HTTP_PROXY | HTTPS_PROXY | ALL_PROXY | NO_PROXY  # also in small letters
    | SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE
    | (CUDA|NVIDIA|NCCL|HIP|ROCM|ROCR|HSA|GPU|RCCL|MIOPEN|ONEAPI|SYCL|ZE|VK)_.*
    | (OMP|KMP|MKL|OPENBLAS|GGML|PYTORCH|TORCHINDUCTOR|TRITON|CONDA)_.* | PYTHON.* | VIRTUAL_ENV
    | HF_HOME | HF_HUB_CACHE | HF_HUB_OFFLINE | HF_ENDPOINT | HUGGINGFACE_HUB_CACHE
    | TRANSFORMERS_CACHE | TRANSFORMERS_OFFLINE | TORCH_HOME | MODELSCOPE_CACHE
    | LLAMA_CACHE | OLLAMA_MODELS | VLLM_CACHE_ROOT
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Names of the environment variables that every process inherits from the proxy."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH")
"""A part of the name of a variable that holds a secret, such as NVIDIA_API_KEY."""


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
    base = env if launch.inherit_env else safe_base(env)
    merged = {**base, **{name: _fill(value, port) for name, value in launch.env.items()}, **marks}
    arguments = (*choose_program(launch, merged.get("PATH")), *launch.command[1:])
    return Command(tuple(_fill(word, port) for word in arguments), merged, launch.workdir)


def safe_base(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a program finds its libraries, devices and caches, without secrets.

    >>> safe_base({"HOME": "/root", "CUDA_HOME": "/cuda", "https_proxy": "http://p:1", "HF_TOKEN": "hf_..."})
    {'HOME': '/root', 'CUDA_HOME': '/cuda', 'https_proxy': 'http://p:1'}
    """
    return {name: value for name, value in env.items() if BASE.fullmatch(name) and not SECRET.search(name)}


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
    advice = "install it, or give its full path"
    if program == "llama-server":
        advice = f"install llama.cpp's llama-server, or: {how_to_install('llamacpp')}"
    raise RuntimeFailureError(f"{program} is not on PATH: {advice}")


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
