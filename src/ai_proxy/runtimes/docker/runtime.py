"""Runs services as containers, which survive the proxy; labels identify them after a restart.

The engine may go away and come back at any time: calls fail quickly meanwhile, and containers are watched on.
The runtime removes a container once its exit and its last lines are known.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import HANDLE_VERSION, DockerLaunch, Exit, Handle, Report, Service
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform import tasks
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.base import GpuMemory, Reports
from ai_proxy.runtimes.docker.access import Access, AccessFinder
from ai_proxy.runtimes.docker.answers import Container, ContainerId
from ai_proxy.runtimes.docker.api import DockerApi, RefusedError, fill_in
from ai_proxy.runtimes.docker.errors import explain, name_taken
from ai_proxy.runtimes.docker.events import EventFollower
from ai_proxy.runtimes.docker.images import Images
from ai_proxy.runtimes.docker.logins import Logins
from ai_proxy.runtimes.docker.logs import ContainerLog
from ai_proxy.runtimes.docker.spec import (
    OWNER,
    container_name,
    make_body,
    make_labels,
    parse_exit,
    parse_handle,
)
from ai_proxy.runtimes.docker.stats import ContainerMeter

RETRY = 0.5
"""Seconds between two tries to reach an engine that is away."""

STOP_SLACK = 10.0
"""Longest wait, in seconds beyond the grace, for the engine to have ended a container."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A container that runs or ran, and the task that waits for its exit and removes it."""

    reports: Reports
    end: asyncio.Task[None]


class DockerRuntime:
    """Runs services as containers; implements `core.ports.Runtime`.

    Args:
        settings: Names the engine, and how to reach its containers.
        owner: Label that distinguishes this proxy's containers from those of others.
        version: Of the proxy; a label of containers.
        background: Owns the tasks that follow the engine and its containers.
        container: Name or id of the container that the proxy itself runs in; None when it runs on the host.
        environ: Completes the settings, and names the folder of logins.
        wall: Returns seconds since the epoch.
        gpu_memory: Returns the bytes that processes, by pid, hold on GPUs; None where there are none.
    """

    capabilities = RuntimeCapabilities()

    def __init__(
        self,
        settings: DockerSettings,
        owner: str,
        version: str,
        background: Background,
        *,
        container: str | None = None,
        environ: Mapping[str, str] = os.environ,
        wall: Callable[[], float] = time.time,
        gpu_memory: GpuMemory | None = None,
    ) -> None:
        settings = fill_in(settings, environ)
        self._api = DockerApi(settings.host, settings.certificates)
        self._images = Images(self._api, Logins(environ))
        self._owner = owner
        self._version = version
        self._background = background
        self._access = AccessFinder(settings, self._api, container)
        self._wall = wall
        self._gpu_memory = gpu_memory
        self._rings: dict[str, LogRing] = {}
        self._abandoned: set[asyncio.Task[Handle]] = set()
        self._leftovers: set[asyncio.Task[None]] = set()
        self._containers: dict[Handle, Tracked] = {}
        self._events: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        running = sum(container.reports.exit is None for container in self._containers.values())
        return f"<DockerRuntime {self._owner} [{running} running]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:
        """Provide the image, then create and start the container, even when cancelled in between."""
        launch = service.launch
        if not isinstance(launch, DockerLaunch):
            raise RuntimeFailureError(f"{service.id} has no image: it cannot be run as a container")
        if placement.devices is not None:
            launch = replace(launch, gpus=tuple(f"device={device}" for device in placement.devices))
        await self._images.provide(launch, lambda line: self._say(service.id, line), tell)
        launching = tasks.spawn(self._launch(service, launch), f"launch {service.id}")
        try:
            handle = await asyncio.shield(launching)
        except asyncio.CancelledError:
            self._abandon(launching)
            raise
        self._forget_ended(service.id)
        self._find(handle)
        return handle

    async def stop(self, handle: Handle, grace: float) -> None:
        """Have the engine end the container, by force after `grace` seconds, and remove it."""
        container = self._find(handle)
        if container.reports.exit is None:
            await self._end(handle, grace)
        await asyncio.wait({container.end}, timeout=STOP_SLACK)
        if container.reports.exit is None and await self._is_running(handle.ref):
            raise RuntimeFailureError(
                f"{handle.service_id} (container {handle.ref[:12]}) does not end even by SIGKILL: "
                "it hangs in the kernel, most often in a driver or a network file system"
            )

    def watch(self, handle: Handle) -> AsyncGenerator[Report]:
        """Report resource usage and the exit; nothing while the engine is away."""
        return self._find(handle).reports.follow()

    async def handles(self) -> Sequence[Handle]:
        """Return our containers; one that does not run has an empty config hash, which no service matches."""
        if self._abandoned:
            await asyncio.wait(self._abandoned)
        await self._cleared(self._containers)
        access = await self._access.find()
        filters = msgspec.json.encode({"label": [f"{OWNER}={self._owner}"]}).decode()
        listed = await self._api.get("/containers/json", list[ContainerId], all=1, filters=filters)
        inspected = [await self._api.inspect(one.id) for one in listed]
        found = (_listed(container, access) for container in inspected if container is not None)
        return [handle for handle in found if handle is not None]

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""
        return self._rings.setdefault(service_id, LogRing())

    def listener_fault(self, handle: Handle) -> str:  # noqa: ARG002
        """Return nothing: the engine holds the port for as long as the container runs."""
        return ""

    async def aclose(self) -> None:
        """Stop following; the containers go on running."""
        await self._cleared(self._containers)
        ends = (container.end for container in self._containers.values())
        await tasks.cancel(self._events, *self._abandoned, *ends, *self._leftovers)
        self._containers.clear()
        await self._images.close()
        await self._api.close()

    async def _launch(self, service: Service, launch: DockerLaunch) -> Handle:
        """Run a container, or take the one that already runs with this declaration."""
        await self._cleared(handle for handle in self._containers if handle.service_id == service.id)
        access = await self._access.find()
        name = container_name(service.id)
        present = await self._api.inspect(name)
        running = await self._take_over(service, name, present, access) if present else None
        if running:
            return running
        try:
            ref = await self._create(service, launch, name, access)
        except RefusedError as error:
            raise RuntimeFailureError(explain(launch, error.message)) from error
        made = await self._api.inspect(ref)
        handle = parse_handle(made, await self._access.find()) if made else None  # its network may be new
        if handle is None:
            raise RuntimeFailureError(f"the container of {service.id} was removed as soon as it ran")
        return handle

    async def _take_over(
        self, service: Service, name: str, present: Container, access: Access
    ) -> Handle | None:
        """Return our container of that name if it runs as declared; else remove it, if it is ours."""
        owner = present.labels.get(OWNER)
        if owner != self._owner:
            raise RuntimeFailureError(name_taken(name, present.id, owner))
        handle = parse_handle(present, access)
        if present.state.running:
            if handle and (handle.config_hash, handle.version) == (service.config_hash, HANDLE_VERSION):
                return handle
            with contextlib.suppress(RefusedError):
                await self._api.post(
                    f"/containers/{present.id}/stop",
                    limit=service.stop_grace + STOP_SLACK,
                    t=math.ceil(service.stop_grace),
                )
        await self._remove(present.id)
        return None

    async def _create(self, service: Service, launch: DockerLaunch, name: str, access: Access) -> str:
        """Create and start a container; return its id. Nothing of it is left when the engine refuses."""
        labels = make_labels(service, launch, self._owner, self._version)
        ref = await self._api.create(name, make_body(launch, labels, access))
        try:
            for network in access.join(launch.networks)[1:]:
                await self._api.post(f"/networks/{network}/connect", {"Container": ref})
            await self._api.post(f"/containers/{ref}/start")
        except RefusedError:
            await self._remove(ref)
            raise
        return ref

    async def _end(self, handle: Handle, grace: float) -> None:
        """Have the engine end a container."""
        path = f"/containers/{handle.ref}"
        try:
            await self._api.post(f"{path}/stop", limit=grace + STOP_SLACK, t=math.ceil(grace))
        except RefusedError as error:
            if error.engine_status == 404:
                return
            logger.bind(service=handle.service_id).warning("docker stop: {}; killing it", error.message)
            with contextlib.suppress(RefusedError):
                await self._api.post(f"{path}/kill", limit=STOP_SLACK)

    async def _is_running(self, ref: str) -> bool:
        container = await self._api.inspect(ref)
        return container is not None and container.state.running

    async def _remove(self, ref: str) -> None:
        """Remove a container with its anonymous volumes, now or when the engine is back."""
        try:
            await self._delete(ref)
        except RuntimeUnavailableError as error:
            logger.warning("container {} could not be removed yet: {}", ref[:12], error.detail)
            removal = self._background.run(partial(self._remove_later, ref), "docker containers")
            self._leftovers.add(removal)
            removal.add_done_callback(self._leftovers.discard)

    async def _remove_later(self, ref: str) -> None:
        while True:
            await asyncio.sleep(RETRY)
            with contextlib.suppress(RuntimeUnavailableError):
                return await self._delete(ref)

    async def _delete(self, ref: str) -> None:
        try:
            await self._api.delete(f"/containers/{ref}", force=1, v=1)
        except RefusedError as error:
            if error.engine_status not in (404, 409):
                logger.warning("container {} could not be removed: {}", ref[:12], error.message)

    def _abandon(self, launching: asyncio.Task[Handle]) -> None:
        """Let a cancelled launch finish; `handles` waits for it and lists the result."""
        self._abandoned.add(launching)
        launching.add_done_callback(self._abandoned.discard)
        launching.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _cleared(self, handles: Iterable[Handle]) -> None:
        """Wait until the engine has removed those of the containers that have ended."""
        containers = [self._containers[handle] for handle in handles]
        if ends := {container.end for container in containers if container.reports.exit is not None}:
            await asyncio.wait(ends, timeout=STOP_SLACK)

    def _forget_ended(self, service_id: str) -> None:
        """Forget earlier containers of a service; their watchers have seen the exit."""
        for handle, container in tuple(self._containers.items()):
            if handle.service_id == service_id and container.reports.exit is not None:
                del self._containers[handle]

    def _find(self, handle: Handle) -> Tracked:
        """Return the container; start to follow it if it is from before a restart."""
        if handle not in self._containers:
            reports = Reports()
            log = ContainerLog(self._api, handle.ref, self.logs(handle.service_id))
            meter = ContainerMeter(self._api, handle.ref, reports.publish, self._wall, self._gpu_memory)
            follow = partial(self._follow, handle.ref, reports, log, meter)
            self._containers[handle] = Tracked(reports, self._background.run(follow, "docker containers"))
        if self._events is None:
            follower = EventFollower(self._api, self._owner, self._say, self._wall())
            self._events = self._background.run(follower.follow, "docker events")
        return self._containers[handle]

    async def _follow(self, ref: str, reports: Reports, log: ContainerLog, meter: ContainerMeter) -> None:
        """Follow a container until it has ended, report its exit, and remove it."""
        followers = [
            self._background.run(log.follow, "docker logs"),
            self._background.run(meter.follow, "docker stats"),
        ]
        try:
            end = await self._exited(ref)
        finally:
            await tasks.cancel(*followers)
        await log.finish()
        reports.publish(end)
        await self._remove(ref)

    async def _exited(self, ref: str) -> Exit:
        """Wait for the exit of a container, also while the engine is away."""
        while True:
            try:
                code = await self._api.wait(ref)
                ended = await self._api.inspect(ref)
                return parse_exit(code, out_of_memory=ended is not None and ended.state.oom_killed)
            except RuntimeUnavailableError:
                await asyncio.sleep(RETRY)
            except RefusedError as error:
                if error.engine_status == 404:
                    return Exit(None, "had ended before: its container is gone")
                raise

    def _say(self, service_id: str, line: str) -> None:
        self.logs(service_id).append(line, self._wall())


def _listed(container: Container, access: Access) -> Handle | None:
    """Return the handle of a container; None when it is being removed or is not a service."""
    handle = parse_handle(container, access)
    if handle is None or container.state.status == "removing":
        return None
    return handle if container.state.running else replace(handle, config_hash="")
