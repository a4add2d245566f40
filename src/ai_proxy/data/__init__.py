"""Data files of the package: a tiny model for demonstrations and tests."""

from importlib.resources import files
from pathlib import Path

DEMO_SENTENCE = (
    "One address answers for every model you keep: it wakes each engine when somebody asks, "
    "streams its words while they are fresh, and lets the whole machine rest once nobody calls."
)
"""The demo model's answer to every prompt at temperature 0. No word occurs twice."""


def demo_model_path() -> Path:
    """Return the demo model, a GGUF file of about 0.6 MB made by `scripts/make_demo_model`."""
    return Path(str(files(__name__) / "recite.gguf"))
