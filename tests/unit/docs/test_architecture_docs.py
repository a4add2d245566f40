"""The architecture page, held against the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "ai_proxy"
WALK = PAGE.partition("### One streamed chat")[2].partition("###")[0]


def test_every_file_and_folder_that_is_named_exists() -> None:
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", PAGE)

    assert len(named) > 30
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_the_walk_of_a_chat_names_every_file_of_the_data_plane_that_has_a_part_in_it() -> None:
    elsewhere = {
        "http/multipart.py": "reads forms",
        "http/timeouts.py": "names what is waited for",
        "http/wire.py": "rules that both sides share",
        "inference/form.py": "for forms",
        "routing/redirect.py": "for plain HTTP",
        "ports.py": "protocols",
        "principal.py": "who calls",
    }
    files = {str(file.relative_to(PACKAGE / "gateway")) for file in (PACKAGE / "gateway").rglob("*.py")}
    expected = {name for name in files if not name.endswith("__init__.py")} - set(elsewhere)

    assert set(re.findall(r"`gateway/([a-z_/]+\.py)`", WALK)) == expected


def test_every_package_has_its_row_in_the_house() -> None:
    rows = PAGE.partition("| folder |")[2].partition("The arrows")[0]
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")} - {"data"}

    assert {name for name in packages if f"`{name}/`" not in rows} == set()
