"""What to do about services: those of an old and a new configuration, and those that were found running."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ai_proxy.control.views import ReloadReport
from ai_proxy.core.service import HANDLE_VERSION, Handle, Service


def compare(old: Iterable[Service], new: Iterable[Service]) -> ReloadReport:
    """Sort services by what has to be done about them; a running one is replaced only if its hash changed."""
    before = {service.id: service for service in old}
    after = {service.id: service for service in new}
    both = [service_id for service_id in after if service_id in before]
    restarted = tuple(i for i in both if before[i].config_hash != after[i].config_hash)
    unchanged = tuple(i for i in both if before[i] == after[i])
    return ReloadReport(
        added=tuple(i for i in after if i not in before),
        removed=tuple(i for i in before if i not in after),
        restarted=restarted,
        updated=tuple(i for i in both if i not in restarted and i not in unchanged),
        unchanged=unchanged,
    )


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found running under one runtime after a restart of the proxy.

    Attributes:
        adopted: By service id, what goes on as it is.
        outdated: Services of which something runs that cannot go on: it is to end before they start.
        orphans: What belongs to no declared service, or runs beside what goes on.
    """

    adopted: Mapping[str, Handle]
    outdated: frozenset[str]
    orphans: tuple[Handle, ...]


def classify(handles: Iterable[Handle], services: Iterable[Service]) -> Findings:
    """Sort what was found running: adopted is one handle per service, with the declaration it has now.

    Args:
        handles: What runs under one runtime.
        services: Those declared for that runtime.
    """
    hashes = {service.id: service.config_hash for service in services}
    adopted: dict[str, Handle] = {}
    rest: list[Handle] = []
    for handle in sorted(handles, key=lambda h: h.started, reverse=True):
        matches = hashes.get(handle.service_id) == handle.config_hash and handle.version == HANDLE_VERSION
        if matches and handle.service_id not in adopted:
            adopted[handle.service_id] = handle
        else:
            rest.append(handle)
    outdated = {handle.service_id for handle in rest} & (hashes.keys() - adopted.keys())
    orphans = tuple(handle for handle in rest if handle.service_id not in outdated)
    return Findings(adopted, frozenset(outdated), orphans)
