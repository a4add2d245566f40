"""Services run as containers of a Docker engine, which survive the proxy and are found again by their labels.

The engine may go and come back at any time: calls fail quickly meanwhile, and whoever waits for a container
goes on waiting. A container that has ended is removed once its exit and its last words are known.
"""

import asyncio
import contextlib
import json
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import DockerLaunch, Exit, Handle, Report, Service
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform import tasks
from ai_proxy.runtimes.docker import events as docker_events
from ai_proxy.runtimes.docker.access import AccessFinder
from ai_proxy.runtimes.docker.api import DockerApi, Json, RefusedError
from ai_proxy.runtimes.docker.errors import explain, name_taken
from ai_proxy.runtimes.docker.host import fill_in
from ai_proxy.runtimes.docker.images import Images
from ai_proxy.runtimes.docker.logins import Logins
from ai_proxy.runtimes.docker.logs import ContainerLog
from ai_proxy.runtimes.docker.spec import (
    CONFIG_HASH,
    OWNER,
    Access,
    container_name,
    make_body,
    make_labels,
    parse_exit,
    parse_handle,
)
from ai_proxy.runtimes.docker.stats import ContainerMeter, GpuMemory

RETRY = 0.5
"""Seconds between two tries to wait for a container while the engine is away."""

STOP_SLACK = 10.0
"""Longest wait, in seconds beyond the grace, for the engine to have ended a container."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A container that runs or ran, and the tasks that see it to its end and remove it then."""

    meter: ContainerMeter
    end: asyncio.Task[Exit]
    removal: asyncio.Task[None]

    @property
    def tasks(self) -> tuple[asyncio.Task[None], asyncio.Task[Exit]]:
        """Both, the one that waits for the other first."""
        return self.removal, self.end


class DockerRuntime:
    """Runs services as containers; implements `core.ports.Runtime`.

    Args:
        settings: Which engine it is, and how its containers are reached.
        owner: Tells this proxy's containers from those of all others that use the engine.
        version: Of the proxy, noted on containers.
        container: Name or id of the container that the proxy itself runs in; None when it runs on the host.
        environ: What the settings leave open, and where the `docker` command keeps its logins.
        wall: Returns seconds since the epoch.
        gpu_memory: Tells the bytes that processes, by pid, hold on GPUs; None where there are none.
    """

    capabilities = RuntimeCapabilities()

    def __init__(
        self,
        settings: DockerSettings,
        owner: str,
        version: str,
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
        self._access = AccessFinder(settings, self._api, container)
        self._wall = wall
        self._gpu_memory = gpu_memory
        self._rings: dict[str, LogRing] = {}
        self._abandoned: set[asyncio.Task[Handle]] = set()
        self._leftovers: set[asyncio.Task[None]] = set()
        self._instances: dict[Handle, Instance] = {}
        self._events: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        running = sum(not instance.end.done() for instance in self._instances.values())
        return f"<DockerRuntime {self._owner} [{running} running]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:  # noqa: ARG002
        """Provide the image, then create and start the container, which is not left halfway if cancelled."""
        launch = service.launch
        if not isinstance(launch, DockerLaunch):
            raise RuntimeFailureError(f"{service.id} has no image: it cannot be run as a container")
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
        """Have the engine end it politely, after `grace` seconds by force, and remove it."""
        instance = self._find(handle)
        if not instance.end.done():
            await self._end(handle, grace)
        await asyncio.wait({instance.removal}, timeout=STOP_SLACK)
        if not instance.end.done() and await self._is_running(handle.ref):
            raise RuntimeFailureError(
                f"{handle.service_id} (container {handle.ref[:12]}) does not end even by SIGKILL: "
                "it hangs in the kernel, most often in a driver or a network file system"
            )

    async def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Report what it uses, and its exit; nothing while the engine is away."""
        instance = self._find(handle)
        while not instance.end.done():
            measured = tasks.spawn(instance.meter.measured.wait(), "measured")
            try:
                await asyncio.wait({measured, instance.end}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await tasks.cancel(measured)
            if instance.meter.latest is not None and not instance.end.done():
                yield instance.meter.latest
        yield instance.end.result()

    async def handles(self) -> Sequence[Handle]:
        """Return what is ours; what was left behind without running has no config hash, so none matches."""
        if self._abandoned:
            await asyncio.wait(self._abandoned)
        await self._cleared(self._instances)
        access = await self._access.find()
        filters = json.dumps({"label": [f"{OWNER}={self._owner}"]})
        listed = await self._api.get("/containers/json", all=1, filters=filters)
        inspected = [await self._api.inspect(item["Id"]) for item in listed]
        found = (_listed(facts, access) for facts in inspected if facts is not None)
        return [handle for handle in found if handle is not None]

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""
        return self._rings.setdefault(service_id, LogRing())

    async def close(self) -> None:
        """Let go of everything and leave it running."""
        await self._cleared(self._instances)
        instances = self._instances.values()
        watching = [task for instance in instances for task in instance.tasks]
        await tasks.cancel(self._events, *self._abandoned, *watching, *self._leftovers)
        self._instances.clear()
        await self._images.close()
        await self._api.close()

    async def _launch(self, service: Service, launch: DockerLaunch) -> Handle:
        """Make a container run; one that runs already, with this declaration, is taken as it is."""
        await self._cleared(handle for handle in self._instances if handle.service_id == service.id)
        access = await self._access.find()
        name = container_name(service.id)
        facts = await self._api.inspect(name)
        running = await self._take_over(service, name, facts, access) if facts else None
        if running:
            return running
        try:
            ref = await self._create(service, launch, name, access)
        except RefusedError as error:
            raise RuntimeFailureError(explain(launch, error.message)) from error
        facts = await self._api.inspect(ref)
        handle = parse_handle(facts, await self._access.find()) if facts else None  # its bridge may be new
        if handle is None:
            raise RuntimeFailureError(f"the container of {service.id} was removed as soon as it ran")
        return handle

    async def _take_over(self, service: Service, name: str, facts: Json, access: Access) -> Handle | None:
        """Return our container of that name if it runs as declared; else remove it, if it is ours."""
        labels = facts["Config"].get("Labels") or {}
        if labels.get(OWNER) != self._owner:
            raise RuntimeFailureError(name_taken(name, facts["Id"], labels.get(OWNER)))
        handle = parse_handle(facts, access)
        if facts["State"]["Running"]:
            if handle and labels.get(CONFIG_HASH) == service.config_hash:
                return handle
            with contextlib.suppress(RefusedError):
                await self._api.post(
                    f"/containers/{facts['Id']}/stop",
                    limit=service.stop_grace + STOP_SLACK,
                    t=math.ceil(service.stop_grace),
                )
        await self._remove(facts["Id"])
        return None

    async def _create(self, service: Service, launch: DockerLaunch, name: str, access: Access) -> str:
        """Create and start a container; return its id. Nothing of it is left when the engine refuses."""
        body = make_body(launch, make_labels(service, launch, self._owner, self._version), access)
        ref: str = (await self._api.post("/containers/create", body, name=name))["Id"]
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
        facts = await self._api.inspect(ref)
        return facts is not None and bool(facts["State"]["Running"])

    async def _remove(self, ref: str) -> None:
        """Remove a container with its anonymous volumes; one that cannot be removed now is later on."""
        try:
            await self._delete(ref)
        except RuntimeUnavailableError as error:
            logger.warning("container {} could not be removed yet: {}", ref[:12], error.detail)
            removal = tasks.spawn(self._remove_later(ref), f"remove {ref[:12]}")
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
        """Let a launch come to its end unattended; `handles` waits for it, to know what came of it."""
        self._abandoned.add(launching)
        launching.add_done_callback(self._abandoned.discard)
        launching.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _cleared(self, handles: Iterable[Handle]) -> None:
        """Return when those of these containers that have ended are removed, as far as the engine does it."""
        instances = [self._instances[handle] for handle in handles]
        if removals := {instance.removal for instance in instances if instance.end.done()}:
            await asyncio.wait(removals, timeout=STOP_SLACK)

    def _forget_ended(self, service_id: str) -> None:
        """Drop how earlier instances ended: whoever wanted to know has asked by now."""
        for handle, instance in tuple(self._instances.items()):
            if handle.service_id == service_id and instance.end.done():
                del self._instances[handle]

    def _find(self, handle: Handle) -> Instance:
        """Return the instance, adopting it if it is from before."""
        if handle not in self._instances:
            log = ContainerLog(self._api, handle.ref, self.logs(handle.service_id))
            meter = ContainerMeter(self._api, handle.ref, self._wall, self._gpu_memory)
            end = tasks.spawn(self._see_to_its_end(handle, log, meter), f"container {handle.service_id}")
            removal = tasks.spawn(self._remove_after(end, handle.ref), f"remove {handle.service_id}")
            self._instances[handle] = Instance(meter, end, removal)
        if self._events is None:
            following = docker_events.follow(self._api, self._owner, self._say, self._wall())
            self._events = tasks.spawn(following, "docker events")
        return self._instances[handle]

    async def _see_to_its_end(self, handle: Handle, log: ContainerLog, meter: ContainerMeter) -> Exit:
        """Wait for its end and take the rest of the output."""
        name = handle.service_id
        followers = (tasks.spawn(log.follow(), f"logs {name}"), tasks.spawn(meter.follow(), f"stats {name}"))
        try:
            end = await self._exited(handle.ref)
        finally:
            await tasks.cancel(*followers)
        await log.finish()
        return end

    async def _remove_after(self, end: asyncio.Task[Exit], ref: str) -> None:
        """Remove a container that has ended; this does not hold up the news, as its address is free now."""
        await asyncio.wait({end})
        await self._remove(ref)

    async def _exited(self, ref: str) -> Exit:
        while True:
            try:
                async with self._api.stream(
                    "POST", f"/containers/{ref}/wait", condition="not-running"
                ) as answer:
                    code = json.loads(await answer.read())["StatusCode"]
                facts = await self._api.inspect(ref)
                return parse_exit(code, facts["State"] if facts else {})
            except RefusedError as error:
                if error.engine_status == 404:
                    return Exit(None, "had ended before: its container is gone")
            except (RuntimeUnavailableError, ValueError):
                pass
            await asyncio.sleep(RETRY)

    def _say(self, service_id: str, line: str) -> None:
        self.logs(service_id).append(line, self._wall())


def _listed(facts: Json, access: Access) -> Handle | None:
    """Return the handle of a container that runs or was left behind; None when nothing is to be done."""
    status = facts["State"]["Status"]
    handle = parse_handle(facts, access)
    if handle is None or status == "removing":
        return None
    return handle if facts["State"]["Running"] else replace(handle, config_hash="")
