import re
from pathlib import Path

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Modality
from ai_proxy.core.detection import EngineState
from ai_proxy.engines.catalog import BUILT_IN

PAGE = Path(__file__).parents[3].joinpath("docs", "engines.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """Return the first table under a heading, by the first cell of each row."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[1:]
    cells = [re.sub("`", "", line).split(" | ") for line in lines]
    return {first: rest for first, *rest in cells}


def test_the_page_says_where_every_engine_is_looked_for() -> None:
    told = rows("Where engines are detected")

    for name, engine in BUILT_IN.items():
        if (locator := engine.locator) is not None:
            row = [name, f"127.0.0.1:{locator.port}", locator.variable, locator.programs[0]]
            assert told[engine.title] == row


def test_the_page_tells_every_state() -> None:
    assert set(EngineState) <= rows("States").keys()


def test_the_page_says_what_every_engine_takes() -> None:
    told = rows("What each engine supports")

    for engine in BUILT_IN.values():
        if engine.name in ("generic", "openai"):
            continue
        abilities = engine.profile.abilities
        endpoints, images, audio = told[abilities.title]
        more = {endpoint.name.lower() for endpoint in abilities.endpoints - TEXT_ENDPOINTS}
        assert set(endpoints.split(", ")) == more
        assert (images == "yes", audio == "yes") == tuple(one in abilities.modalities for one in Modality)
