"""SGLang's OpenAI-compatible server."""

from ai_proxy.engines.base import CHAT, Profile

SGLANG = Profile("sglang", owned_by="sglang", capabilities=CHAT | {"embeddings", "tools", "vision"})
