"""Anthropic's Messages API in front of engines that only have OpenAI's chat completions."""

from ai_proxy.dialects.anthropic.errors import error_body, error_event, error_type
from ai_proxy.dialects.anthropic.messages import translate

__all__ = ["error_body", "error_event", "error_type", "translate"]
