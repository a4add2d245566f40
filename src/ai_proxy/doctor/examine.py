"""Runs all checks concurrently; a check that fails does not affect the others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ai_proxy.doctor.backends import check_backends, check_engines, check_llama_server
from ai_proxy.doctor.certificates import check_certificates
from ai_proxy.doctor.docker import check_docker
from ai_proxy.doctor.finding import Finding, problem, warning
from ai_proxy.doctor.folders import check_data_folder, check_run_folder
from ai_proxy.doctor.installation import Installation, check_configuration
from ai_proxy.doctor.machine import check_clock, check_gpu, check_memory, check_open_files
from ai_proxy.doctor.ports import check_ports
from ai_proxy.doctor.store import check_store

type Check = Callable[[Installation], Awaitable[Sequence[Finding]]]

CHECKS: Mapping[str, Check] = {
    "configuration": check_configuration,
    "data directory": check_data_folder,
    "run directory": check_run_folder,
    "store": check_store,
    "certificates": check_certificates,
    "ports": check_ports,
    "services": check_backends,
    "llama-server": check_llama_server,
    "Docker": check_docker,
    "GPU": check_gpu,
    "memory": check_memory,
    "open files": check_open_files,
    "clock": check_clock,
    "engines": check_engines,
}
"""All checks by subject, in the order of the report."""

LIMIT = 2.5
"""Seconds a check may take."""


async def examine(
    installation: Installation, checks: Mapping[str, Check] = CHECKS, limit: float = LIMIT
) -> Sequence[Finding]:
    """Run checks and return their findings.

    Args:
        installation: The installation to check.
        checks: Checks by subject.
        limit: Seconds each check may take.
    """
    runs = (_run(subject, check, installation, limit) for subject, check in checks.items())
    return [finding for findings in await asyncio.gather(*runs) for finding in findings]


async def _run(subject: str, check: Check, installation: Installation, limit: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(limit):
            return await check(installation)
    except TimeoutError:
        text = f"the check did not finish within {limit:g} s"
        return [warning(subject, text, "try again when the machine is less busy")]
    except Exception as error:  # noqa: BLE001 - a failing check is a finding; the others go on
        text = f"the check failed: {type(error).__name__}: {error}"
        return [problem(subject, text, "report this as a bug of ai-proxy")]
