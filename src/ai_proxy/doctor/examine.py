"""Runs every check, all at once; none can stop the others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ai_proxy.doctor.backends import check_backends, check_llama_server
from ai_proxy.doctor.certificates import check_certificates
from ai_proxy.doctor.configuration import check_configuration
from ai_proxy.doctor.docker import check_docker
from ai_proxy.doctor.engines import check_engines
from ai_proxy.doctor.finding import Finding, problem, warning
from ai_proxy.doctor.folders import check_data_folder, check_run_folder
from ai_proxy.doctor.installation import Installation
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
"""Everything that is looked at, in the order in which it is told."""

LIMIT = 2.5
"""Seconds a check may take."""


async def examine(
    installation: Installation, checks: Mapping[str, Check] = CHECKS, limit: float = LIMIT
) -> Sequence[Finding]:
    """Return what all checks found.

    Args:
        installation: What is examined.
        checks: By what they look at.
        limit: Seconds each may take.
    """
    runs = (_run(subject, check, installation, limit) for subject, check in checks.items())
    return [finding for findings in await asyncio.gather(*runs) for finding in findings]


async def _run(subject: str, check: Check, installation: Installation, limit: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(limit):
            return await check(installation)
    except TimeoutError:
        text = f"could not be looked at within {limit:g} s"
        return [warning(subject, text, "see whether the machine is very busy, and try again")]
    except Exception as error:  # noqa: BLE001 - a check that breaks says so, and the others go on
        text = f"could not be looked at: {type(error).__name__}: {error}"
        return [problem(subject, text, "please report this as a bug of ai-proxy")]
