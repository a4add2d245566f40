"""The installation that the checks examine, and the check of its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load_config
from ai_proxy.config.problems import ConfigError
from ai_proxy.config.schema import Config
from ai_proxy.core.service import Service
from ai_proxy.doctor.finding import Finding, ok, problem

SUBJECT = "configuration"


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation of ai-proxy, whether or not it runs.

    Attributes:
        config: The configuration; the default one when the file has errors.
        config_file: The configuration file; None for none.
        faults: Errors of the configuration, one line each.
        services: The services it declares.
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


def load_installation(
    config_file: Path | None, data: Path, run: Path, env: Mapping[str, str], now: float
) -> Installation:
    """Return the installation; a configuration with errors is replaced by the default one."""
    config, faults = Config(), tuple[str, ...]()
    if config_file is not None:
        try:
            config = load_config(config_file, env)
        except ConfigError as error:
            faults = tuple(str(fault) for fault in error.problems)
    return Installation(config, config_file, faults, build_services(config), data, run, env, now)


async def check_configuration(installation: Installation) -> Sequence[Finding]:
    """Return one finding for each error of the configuration."""
    if installation.config_file is None:
        return [ok(SUBJECT, "there is no file; ai-proxy serves the engines it detects")]
    if installation.faults:
        fix = "correct the file, then run 'ai-proxy config check'"
        return [problem(SUBJECT, fault, fix) for fault in installation.faults]
    count = len(installation.services)
    return [ok(SUBJECT, f"{installation.config_file} declares {count} service{'' if count == 1 else 's'}")]
