"""An ai-proxy to examine, in folders of its own."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_proxy.doctor.installation import Installation, load_installation

NOW = 1_800_000_000.0

type Setup = Callable[..., Installation]


@pytest.fixture
def run_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aip-") as folder:  # tmp_path is too long for Unix sockets
        yield Path(folder)


@pytest.fixture
def setup(tmp_path: Path, run_folder: Path) -> Setup:
    """Make an installation, with a configuration if one is given."""

    def make(config: str = "", **env: str) -> Installation:
        file = tmp_path / "config.yaml"
        if config:
            file.write_text(config, encoding="utf-8")
        data, path = tmp_path / "data", file if config else None
        return load_installation(path, data, run_folder, {"PATH": "/nowhere", **env}, NOW)

    return make
