"""Engines that were found running, as if they had been declared."""

from collections.abc import Mapping

from ai_proxy.config.build import build_services
from ai_proxy.config.schema import Config, ServiceConfig
from ai_proxy.config.types import BUILT_IN
from ai_proxy.core.service import RuntimeKind, Service


def detected_services(config: Config, addresses: Mapping[str, str]) -> tuple[Service, ...]:
    """Return a service for each engine found, with the defaults of a configuration.

    Args:
        config: What holds for services that do not say otherwise.
        addresses: URLs by engine.

    >>> [(one.id, one.type) for one in detected_services(Config(), {"lmstudio": "http://127.0.0.1:1234"})]
    [('lmstudio', 'lm-studio')]
    """
    types = {template.engine: template.name for template in BUILT_IN.values()}
    services = {
        engine: ServiceConfig(type=types[engine], runtime=RuntimeKind.EXTERNAL, url=url)
        for engine, url in addresses.items()
    }
    return build_services(config.model_copy(update={"types": {}, "services": services}))
