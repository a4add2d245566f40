"""vLLM's OpenAI-compatible server."""

from ai_proxy.engines.base import CHAT, Profile

VLLM = Profile("vllm", owned_by="vllm", capabilities=CHAT | {"embeddings", "tools", "vision", "audio"})
"""It does not listen before it has loaded; `/health` then answers 200 with an empty body."""
