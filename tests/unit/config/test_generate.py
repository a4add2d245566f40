import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def generate(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    (root / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "generate", root / "scripts" / "generate")
    shutil.copytree(ROOT / "tests" / "wire", root / "tests" / "wire", dirs_exist_ok=True)
    return subprocess.run(
        [sys.executable, root / "scripts" / "generate", *args], capture_output=True, text=True, check=False
    )


def test_stale_files_are_named_and_then_written(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    architecture = tmp_path / "docs" / "architecture.md"
    architecture.write_text(
        "before\n<!-- lifecycle:begin -->\nold\n<!-- lifecycle:end -->\n"
        "between\n<!-- client:begin -->\nold\n<!-- client:end -->\nafter\n",
        encoding="utf-8",
    )

    before = generate(tmp_path, "--check")
    generate(tmp_path)
    after = generate(tmp_path, "--check")

    assert before.returncode == 1
    assert "docs/configuration.md is stale" in before.stdout
    assert (after.returncode, after.stdout) == (0, "")
    text = architecture.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- lifecycle:begin -->\n```mermaid\nstateDiagram-v2")
    assert "<!-- lifecycle:end -->\nbetween\n<!-- client:begin -->\n```mermaid\nstateDiagram-v2" in text
    assert text.endswith("<!-- client:end -->\nafter\n")
