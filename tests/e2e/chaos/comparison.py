"""Whether the proxy's view of the world is the world."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AT_REST = ("stopped", "failed")


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine sees it."""

    ref: str
    service: str
    status: str
    host_ports: tuple[str, ...]

    @classmethod
    def parse(cls, inspected: str) -> "Container":
        """Read what `docker inspect` prints about one."""
        (facts,) = json.loads(inspected)
        published = (facts["NetworkSettings"]["Ports"] or {}).values()
        return cls(
            facts["Id"],
            facts["Config"]["Labels"]["ai-proxy.service"],
            facts["State"]["Status"],
            tuple(binding["HostPort"] for bindings in published for binding in bindings or ()),
        )


def differences(
    views: Mapping[str, Mapping[str, Any]], containers: Sequence[Container], processes: Collection[int]
) -> Iterator[str]:
    """Yield whatever is not as it should be once nothing happens any more."""
    yield from _unsettled(views)
    for container in containers:
        view = views.get(container.service)
        if view is None or view["ref"] != container.ref:
            yield f"the proxy does not know {container}"
        elif container.status != "running":
            yield f"{container} is left, which does not run"
    refs = {container.ref for container in containers}
    for name, view in views.items():
        if view["runtime"] == "docker" and view["ref"] is not None and view["ref"] not in refs:
            yield f"{name} is {view['state']} with a container that the engine does not know: {view['ref']}"
    known = {int(view["ref"]) for view in views.values() if view["runtime"] == "process" and view["ref"]}
    if known != set(processes):
        yield f"processes {sorted(processes)} run, the proxy knows {sorted(known)}"
    ports = Counter(port for container in containers for port in container.host_ports)
    yield from (f"port {port} is published {count} times" for port, count in ports.items() if count > 1)


def _unsettled(views: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, view in views.items():
        if view["in_flight"] or view["waiting"]:
            yield f"{name} has {view['in_flight']} requests in flight and {view['waiting']} waiting"
        if view["state"] not in (*AT_REST, "ready"):
            yield f"{name} is {view['state']}: {view['reason']}"
        if view["start"] == "always" and not view["held"] and view["state"] == "stopped":
            yield f"{name} should always run and does not"
        if (view["ref"] is None) is not (view["state"] in AT_REST):
            yield f"{name} is {view['state']} with {view['ref']}"
