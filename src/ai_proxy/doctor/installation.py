"""What is examined: a configuration, its folders, and the moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load_config
from ai_proxy.config.problems import ConfigError
from ai_proxy.config.schema import Config
from ai_proxy.core.service import Service


@dataclass(frozen=True, slots=True)
class Installation:
    """An ai-proxy as it is set up here, whether or not it runs.

    Attributes:
        config: As loaded; what holds without one where it has errors.
        config_file: Where it is; None for none.
        faults: The errors of the configuration, each a line.
        services: That it declares.
        data: The data directory.
        run: Base of the run directories.
        env: The environment.
        now: Seconds since the epoch.
    """

    config: Config
    config_file: Path | None
    faults: tuple[str, ...]
    services: tuple[Service, ...]
    data: Path
    run: Path
    env: Mapping[str, str]
    now: float


def look_at(
    config_file: Path | None, data: Path, run: Path, env: Mapping[str, str], now: float
) -> Installation:
    """Return what is set up here; a configuration with errors counts as none, with its errors."""
    config, faults = Config(), tuple[str, ...]()
    if config_file is not None:
        try:
            config = load_config(config_file, env)
        except ConfigError as error:
            faults = tuple(str(fault) for fault in error.problems)
    return Installation(config, config_file, faults, build_services(config), data, run, env, now)
