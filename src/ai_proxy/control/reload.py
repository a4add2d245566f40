"""What a new configuration means for the services of the old one."""

from collections.abc import Iterable

from ai_proxy.control.views import ReloadReport
from ai_proxy.core.service import Service


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
