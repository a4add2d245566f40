"""Files that come with the package: a tiny model for demonstrations and tests."""

from importlib.resources import files
from pathlib import Path

DEMO_SENTENCE = (
    "One address answers for every model you keep: it wakes each engine when somebody asks, "
    "streams its words while they are fresh, and lets the whole machine rest once nobody calls."
)
"""What the demo model says at temperature 0, whatever it is asked. No word occurs twice."""


def demo_model_path() -> Path:
    """Return the demo model: a GGUF of about 0.6 MB, made by `scripts/make_demo_model`."""
    return Path(str(files(__name__) / "recite.gguf"))
