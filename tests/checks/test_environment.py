"""The virtual environment that the scripts make."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

UV = r"""#!/bin/sh
case $1 in
--version) exit ;;
venv) mkdir -p .venv/bin && echo "#!/bin/sh" >.venv/bin/python && chmod +x .venv/bin/python ;;
esac
echo "$*" >>asked
"""
"""Notes what it is asked for."""


def test_packages_are_installed_in_the_checkout_whatever_environment_is_active(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(UV)
    program.chmod(0o755)
    active = {"VIRTUAL_ENV": "/elsewhere", "CONDA_PREFIX": "/elsewhere", "UV_PYTHON": "/elsewhere/bin/python"}
    path = f"{program.parent}:{os.environ['PATH']}"

    subprocess.run(
        ["bash", "-ec", "source scripts/environment.sh; need_environment"],
        cwd=tmp_path,
        env={**os.environ, **active, "PATH": path},
        check=True,
    )

    made, *installed = (tmp_path / "asked").read_text().splitlines()
    assert made.endswith(" .venv")
    assert len(installed) == 2
    assert all("--python .venv/bin/python" in command for command in installed)
