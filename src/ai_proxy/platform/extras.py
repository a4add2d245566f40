"""What to run to add an optional part of the program, an extra such as `otel`, to the installation that runs.

The command must work from where it is read: before the distribution is on a package index, and whatever
installed the program.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "ai-inference-proxy"


class Installer(StrEnum):
    """What installed the program."""

    PIP = "pip"
    UV = "uv"
    PIPX = "pipx"
    UV_TOOL = "uv tool"


@dataclass(frozen=True, slots=True)
class Installation:
    """How the running program was installed.

    Attributes:
        installer: What installed it.
        python: The path of its interpreter.
        source: The folder or file that it was installed from; None unless it is still there.
        editable: Whether the program runs from that folder.
    """

    installer: Installer
    python: str
    source: str | None = None
    editable: bool = False


def install_command(installed: Installation, extra: str, requirements: Sequence[str]) -> str:
    """Return the command that adds an extra to an installation.

    Args:
        installed: What to add it to.
        extra: The name of the extra.
        requirements: What the extra stands for; installed by themselves where the source is gone.

    >>> install_command(Installation(Installer.UV, ".venv/bin/python", "/src", editable=True), "otel", [])
    "uv pip install --python .venv/bin/python -e '/src[otel]'"
    >>> install_command(Installation(Installer.PIP, "/env/bin/python"), "otel", ["opentelemetry-sdk>=1.45"])
    "/env/bin/python -m pip install 'opentelemetry-sdk>=1.45'"
    """
    source = [f"{installed.source}[{extra}]"] if installed.source else []
    match installed.installer:
        case Installer.PIPX if source:
            words = ["pipx", "install", "--force", *source]
        case Installer.PIPX:
            words = ["pipx", "inject", DISTRIBUTION, *requirements]
        case Installer.UV_TOOL if source:
            words = ["uv", "tool", "install", "--force", *source]
        case Installer.UV | Installer.UV_TOOL:
            words = ["uv", "pip", "install", "--python", installed.python]
            words += [*(["-e"] if installed.editable else []), *(source or requirements)]
        case Installer.PIP:
            words = [installed.python, "-m", "pip", "install"]
            words += [*(["-e"] if installed.editable else []), *(source or requirements)]
    return shlex.join(words)


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra to the installation that runs."""
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:  # run from a folder of sources, or from an image without metadata
        checkout = Path(__file__).parents[3]
        source = str(checkout) if (checkout / "pyproject.toml").is_file() else None
        if source is None:
            return f"install what pyproject.toml lists for the extra '{extra}'"
        return install_command(Installation(Installer.PIP, sys.executable, source, editable=True), extra, [])
    return install_command(find_installation(found, Path(sys.prefix)), extra, requirements_of(found, extra))


def find_installation(found: Distribution, prefix: Path) -> Installation:
    """Return how a distribution was installed.

    Args:
        found: The distribution.
        prefix: The environment's folder; pipx and `uv tool` leave a note in it.
    """
    source, editable = installed_from(json.loads(found.read_text("direct_url.json") or "{}"))
    if (prefix / "pipx_metadata.json").exists():
        installer = Installer.PIPX
    elif (prefix / "uv-receipt.toml").exists():
        installer = Installer.UV_TOOL
    else:
        installer = Installer.UV if (found.read_text("INSTALLER") or "").strip() == "uv" else Installer.PIP
    return Installation(installer, sys.executable, source, editable=editable)


def installed_from(direct_url: dict[str, object]) -> tuple[str | None, bool]:
    """Return the folder or file that a distribution came from, if it is still there; and if it is editable.

    Args:
        direct_url: The record of PEP 610; empty for what came from a package index.
    """
    url = urlsplit(str(direct_url.get("url", "")))
    path = unquote(url.path)
    if url.scheme != "file" or not Path(path).exists():
        return None, False
    folder = direct_url.get("dir_info")
    return path, isinstance(folder, dict) and bool(folder.get("editable"))


def requirements_of(found: Distribution, extra: str) -> list[str]:
    """Return what a distribution asks for with an extra, without the conditions."""
    parts = (text.partition(";") for text in found.requires or ())
    return [asked.strip() for asked, _, marker in parts if f'extra == "{extra}"' in marker.replace("'", '"')]
