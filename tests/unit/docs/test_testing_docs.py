"""`docs/testing.md` against the kit and the example plug-in."""

import re
from pathlib import Path

from ai_proxy.core.ports import Runtime
from ai_proxy.engines.catalog import GROUP as ENGINES
from ai_proxy.engines.profile import EngineDescriptor
from ai_proxy.runtimes.catalog import GROUP as RUNTIMES
from ai_proxy.testing import contracts, fake_engine, fakes, relay

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/testing.md").read_text(encoding="utf-8")


def test_the_page_names_all_of_the_kit() -> None:
    prose = re.sub("```.*?```", "", PAGE, flags=re.DOTALL)
    named = {word for code in re.findall("`([^`]+)`", prose) for word in re.findall(r"\w+", code)}

    for module in (contracts, fakes, fake_engine, relay):
        missing = [name for name in module.__all__ if name not in named]
        assert missing == [], module.__name__


def test_everything_that_is_public_exists() -> None:
    for module in (contracts, fakes, fake_engine, relay):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_example_is_that_of_the_repository() -> None:
    (example,) = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)

    assert example in (ROOT / "tests/contract/test_plugin.py").read_text(encoding="utf-8")


def test_files_and_entry_points_are_named_as_they_are() -> None:
    files = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)

    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert set(re.findall(r'entry-points\."([\w.]+)"', PAGE)) == {ENGINES, RUNTIMES}


def test_every_verb_and_every_part_of_a_descriptor_is_described() -> None:
    verbs = {name for name in vars(Runtime) if not name.startswith("_")} - {"capabilities"}
    described = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    parts = set(re.findall(r"^- `(\w+)`:", PAGE, re.MULTILINE))

    assert described == verbs
    assert set(EngineDescriptor.__dataclass_fields__) <= parts
