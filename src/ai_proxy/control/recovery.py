"""After a restart of the proxy: adopt what still matches its declaration, sweep the rest that is ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import HANDLE_VERSION, Handle, Service

SWEEP_GRACE = 5.0
"""Seconds an orphan is given to end by itself."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What runs and is ours.

    Attributes:
        adopted: By service id, what goes on as it is.
        orphans: What matches no declaration.
    """

    adopted: Mapping[str, Handle]
    orphans: tuple[Handle, ...]


def judge(name: str, handles: Iterable[Handle], services: Iterable[Service]) -> Findings:
    """Decide which running things are adopted: one per service, with the declaration it has now."""
    hashes = {s.id: s.config_hash for s in services if s.launch.runtime == name}
    adopted: dict[str, Handle] = {}
    orphans: list[Handle] = []
    for handle in sorted(handles, key=lambda h: h.started, reverse=True):
        matches = hashes.get(handle.service_id) == handle.config_hash
        if matches and handle.version == HANDLE_VERSION and handle.service_id not in adopted:
            adopted[handle.service_id] = handle
        else:
            orphans.append(handle)
    return Findings(adopted, tuple(orphans))


async def recover(name: str, runtime: Runtime, services: Iterable[Service]) -> Mapping[str, Handle]:
    """Return what is adopted, by service id, after ending what is not.

    Raises:
        RuntimeFailureError: It cannot be told now what runs.
    """
    findings = judge(name, await runtime.handles(), services)
    for orphan in findings.orphans:
        await _sweep(runtime, orphan)
    return findings.adopted


async def _sweep(runtime: Runtime, orphan: Handle) -> None:
    logger.bind(service=orphan.service_id).info(
        "sweeping {} ({}): it matches no declared service", orphan.service_id, orphan.ref
    )
    try:
        await runtime.stop(orphan, SWEEP_GRACE)
    except RuntimeFailureError as error:
        logger.bind(service=orphan.service_id).error("could not sweep {}: {}", orphan.ref, error.detail)
