"""Ollama's native API in front of every engine."""

from ai_proxy.dialects.ollama.chat import chat, generate
from ai_proxy.dialects.ollama.embed import embed, embeddings
from ai_proxy.dialects.ollama.errors import error_body
from ai_proxy.dialects.ollama.load import Unload, unload
from ai_proxy.dialects.ollama.names import strip_latest

__all__ = [
    "Unload",
    "chat",
    "embed",
    "embeddings",
    "error_body",
    "generate",
    "strip_latest",
    "unload",
]
