"""Compiles the data plane when a wheel is built with AI_PROXY_COMPILE=1; the same sources run uncompiled.

mypyc makes C extensions of typed Python: https://mypyc.readthedocs.io/.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HOT = (
    "core/limits",
    "gateway/connection",
    "gateway/counted",
    "gateway/dechunk",
    "gateway/exchange",
    "gateway/inference",
    "gateway/memo",
    "gateway/preflight",
    "gateway/principal",
    "gateway/request",
    "gateway/tokens",
    "gateway/upload",
    "gateway/upstream",
    "gateway/wire",
    "security/limiter",
    "telemetry/metrics",
)
"""Modules on the path of every request, and those that make classes of theirs their own."""


class CompiledDataPlane(BuildHookInterface[Any]):
    """Adds the compiled modules to the wheel, beside their sources."""

    PLUGIN_NAME = "custom"

    @property
    def _wanted(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("AI_PROXY_COMPILE") == "1"

    def dependencies(self) -> list[str]:
        """Return what it takes to build, beside a C compiler."""
        return ["msgspec", "mypy[mypyc]", "setuptools"] if self._wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless it is an editable install, which runs from the sources."""
        if not self._wanted or version == "editable":
            return
        if shutil.which((os.environ.get("CC") or "cc").split()[0]) is None:
            self.app.abort(
                "AI_PROXY_COMPILE=1 takes a C compiler; on Debian: apt-get install build-essential "
                "python3-dev; without the variable, ai-proxy is installed as it is"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="aip-")
        extensions = compile_modules(Path(self.root), Path(self._folder.name))
        build_data["force_include"].update(extensions)
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled: the wheel has it by now."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()


def compile_modules(root: Path, folder: Path) -> dict[str, str]:
    """Compile the hot modules of the project at `root` in a folder; return where each extension belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # Types are checked elsewhere, with all packages there; here, those that are missing are of any type.
    options = [
        "--config-file=",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--namespace-packages",
    ]
    with contextlib.chdir(root / "src"):
        files = [f"ai_proxy/{module}.py" for module in HOT]
        extensions = mypycify([*options, *files], group_name="ai_proxy", target_dir=str(folder / "c"))
        command = build_ext(Distribution({"ext_modules": extensions}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
        command.ensure_finalized()
        command.run()
    return {str(path): str(path.relative_to(folder / "lib")) for path in (folder / "lib").rglob("*.so")}
