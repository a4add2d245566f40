"""What tests in several folders share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.rigs.docker_engine import DockerEngine, private_engine, reason_for_none

IMAGE = "ai-proxy/test"
"""This Python with the embedded llama.cpp; made by `scripts/make_image`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "the chaos test")
    chaos.addoption("--chaos-seed", type=int, default=1, help="what its operations are drawn from")
    chaos.addoption("--chaos-operations", type=int, default=200, help="how many there are")


@pytest.fixture(scope="session")
def image_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of `IMAGE` are kept, so that they are collected only once."""
    return tmp_path_factory.mktemp("image") / "image.tar"


@pytest.fixture(scope="session")
def docker_engine(image_archive: Path) -> Iterator[DockerEngine]:
    """A private Docker engine that holds `IMAGE`, for all tests that do not leave it in disorder."""
    with engine_with_image(image_archive) as engine:
        yield engine


@contextmanager
def engine_with_image(archive: Path) -> Iterator[DockerEngine]:
    """Run an engine that holds `IMAGE`; where there can be none, tests skip, and fail in CI."""
    if reason := reason_for_none():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with private_engine() as engine:
        script = Path(__file__).parents[1] / "scripts" / "make_image"
        command = [sys.executable, str(script), "--archive", str(archive), IMAGE]
        subprocess.run(command, env={**os.environ, "DOCKER_HOST": engine.host}, check=True)
        yield engine
