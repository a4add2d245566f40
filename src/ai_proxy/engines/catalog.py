"""Every engine by the name that services declare."""

from collections.abc import Mapping
from functools import cache

from ai_proxy.engines.llamacpp import LLAMACPP
from ai_proxy.engines.lmstudio import LMSTUDIO
from ai_proxy.engines.ollama import OLLAMA
from ai_proxy.engines.openai import GENERIC, OPENAI
from ai_proxy.engines.profile import EngineDescriptor
from ai_proxy.engines.sglang import SGLANG
from ai_proxy.engines.vllm import VLLM
from ai_proxy.platform.plugins import with_plugins

GROUP = "ai_proxy.engines"
"""The group of entry points by which other packages add engines."""

BUILT_IN: Mapping[str, EngineDescriptor] = {
    engine.name: engine for engine in (LLAMACPP, VLLM, OLLAMA, LMSTUDIO, SGLANG, GENERIC, OPENAI)
}


@cache
def find_engines() -> Mapping[str, EngineDescriptor]:
    """Return the built-in engines and those that installed packages add."""
    found = with_plugins(tuple(BUILT_IN.values()), GROUP, EngineDescriptor)
    return {descriptor.name: descriptor for descriptor in found}
