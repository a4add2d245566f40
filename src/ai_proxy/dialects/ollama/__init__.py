"""Ollama's native API in front of every engine."""

from ai_proxy.dialects.ollama.chat import Unload, chat, generate, unload
from ai_proxy.dialects.ollama.embed import embed, embeddings
from ai_proxy.dialects.ollama.reply import error_body
from ai_proxy.dialects.ollama.request import strip_latest

__all__ = ["Unload", "chat", "embed", "embeddings", "error_body", "generate", "strip_latest", "unload"]
