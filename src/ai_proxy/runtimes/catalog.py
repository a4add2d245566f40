"""Every runtime by the name that services declare."""

from collections.abc import Mapping
from functools import cache

from ai_proxy.platform.plugins import with_plugins
from ai_proxy.runtimes.base import RuntimeDescriptor
from ai_proxy.runtimes.docker import DOCKER
from ai_proxy.runtimes.external import EXTERNAL
from ai_proxy.runtimes.process import PROCESS

GROUP = "ai_proxy.runtimes"
"""The group of entry points by which other packages add runtimes."""


@cache
def find_runtimes() -> Mapping[str, RuntimeDescriptor]:
    """Return the built-in runtimes and those that installed packages add."""
    found = with_plugins((PROCESS, DOCKER, EXTERNAL), GROUP, RuntimeDescriptor)
    return {descriptor.name: descriptor for descriptor in found}
