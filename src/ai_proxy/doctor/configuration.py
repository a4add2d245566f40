"""Whether the configuration is valid."""

from collections.abc import Sequence
from pathlib import Path

from ai_proxy.doctor.finding import Finding, ok, problem
from ai_proxy.doctor.installation import Installation

SUBJECT = "configuration"


def judge_configuration(file: Path | None, faults: Sequence[str], services: int) -> Sequence[Finding]:
    """Return one line for each error.

    >>> [finding.text for finding in judge_configuration(None, (), 0)]
    ['there is none, which is fine: engines that run by themselves are served']
    """
    if file is None:
        return [ok(SUBJECT, "there is none, which is fine: engines that run by themselves are served")]
    if not faults:
        return [ok(SUBJECT, f"{file} declares {services} {'service' if services == 1 else 'services'}")]
    return [
        problem(SUBJECT, fault, "correct the file; 'ai-proxy config check' looks again") for fault in faults
    ]


async def check_configuration(installation: Installation) -> Sequence[Finding]:
    """Look at the configuration."""
    return judge_configuration(installation.config_file, installation.faults, len(installation.services))
