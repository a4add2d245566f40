"""llama.cpp's server: `llama-server`, or the one embedded in the xllamacpp wheel."""

from ai_proxy.engines.base import CHAT, Profile

LLAMACPP = Profile("llamacpp", owned_by="llamacpp", capabilities=CHAT | {"embeddings", "tools", "vision"})
"""While it loads, `/health` and `/v1/models` answer 503 `Loading model`; `/health` never wants a key."""
