"""Engines known only by what they speak: OpenAI's API, or just HTTP."""

from ai_proxy.engines.http import Profile

OPENAI = Profile(
    "openai",
    alive=frozenset({200, 401, 403, 404, 429}),
)
"""Anything that speaks OpenAI's API, most often a remote provider: one that wants another key is up."""

GENERIC = Profile("generic", listings=(), alive=range(100, 500))
"""Any HTTP server: whatever it answers, short of a failure of its own, shows that it is up."""
