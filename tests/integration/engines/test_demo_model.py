import asyncio
import sys
from pathlib import Path

from ai_proxy.data import DEMO_SENTENCE, demo_model_path

RECIPE = Path(__file__).parents[3] / "scripts" / "make_demo_model"


async def test_the_shipped_model_is_what_its_recipe_makes_byte_for_byte(tmp_path: Path) -> None:
    made = tmp_path / "made.gguf"
    process = await asyncio.create_subprocess_exec(sys.executable, RECIPE, made)
    assert await process.wait() == 0
    assert made.read_bytes() == demo_model_path().read_bytes()


def test_no_word_of_the_sentence_occurs_twice_as_the_recital_needs() -> None:
    words = DEMO_SENTENCE.split()
    assert len(words) == len(set(words)) == 31
