"""Every engine by the name that services declare."""

import aiohttp

from ai_proxy.engines.http import HttpEngine
from ai_proxy.engines.llamacpp import LLAMACPP
from ai_proxy.engines.lmstudio import LMSTUDIO
from ai_proxy.engines.ollama import OLLAMA
from ai_proxy.engines.openai import GENERIC, OPENAI
from ai_proxy.engines.sglang import SGLANG
from ai_proxy.engines.vllm import VLLM

PROFILES = {profile.name: profile for profile in (LLAMACPP, VLLM, OLLAMA, LMSTUDIO, SGLANG, OPENAI, GENERIC)}


def build_engines(session: aiohttp.ClientSession) -> dict[str, HttpEngine]:
    """Return every engine by name.

    Args:
        session: Shared by all of them; closed by the caller.
    """
    return {name: HttpEngine(profile, session) for name, profile in PROFILES.items()}
