"""A short run of what `./scripts/soak` does for as long as wanted."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.rigs.docker_engine import DockerEngine

ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
def test_under_mixed_load_with_kills_no_answer_is_wrong_and_nothing_is_left(
    docker_engine: DockerEngine,
) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.soak",
        "0.3",
        "--idle",
        "300",
        "--docker",
        docker_engine.host,
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr
