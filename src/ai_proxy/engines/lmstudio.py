"""LM Studio."""

from ai_proxy.engines.base import CHAT, Profile

LMSTUDIO = Profile(
    "lmstudio", owned_by="organization_owner", capabilities=CHAT | {"embeddings", "tools", "vision"}
)
"""Paths it does not know answer 200 with an `error`: judge its bodies, not its statuses."""
