"""Ollama."""

from ai_proxy.engines.base import CHAT, Profile

OLLAMA = Profile("ollama", owned_by="library", capabilities=CHAT | {"embeddings", "tools", "vision"})
"""It has no `/health`; `/` answers `Ollama is running`. A model list without models has `"data":null`."""
