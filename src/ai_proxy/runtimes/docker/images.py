"""Pulls images from registries: one pull per image at a time, with progress in words."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.ports import Tell
from ai_proxy.core.service import DockerLaunch
from ai_proxy.core.settings import MB
from ai_proxy.platform import tasks
from ai_proxy.runtimes.docker.answers import PullDetail, PullReport
from ai_proxy.runtimes.docker.api import DockerApi, RefusedError
from ai_proxy.runtimes.docker.errors import explain
from ai_proxy.runtimes.docker.logins import Logins

SILENCE = 120.0
"""Longest wait for the next sign of progress, in seconds."""

SAY_EVERY = 10.0
"""Seconds between two lines of progress while no layer is completed."""

DONE = frozenset({"Already exists", "Pull complete"})
LAYER = frozenset({"Pulling fs layer", "Waiting", "Downloading", "Download complete", "Extracting"}) | DONE


@dataclass(slots=True)
class Layer:
    """One layer of an image; sizes in bytes, 0 while unknown."""

    current: int = 0
    total: int = 0
    done: bool = False


@dataclass(slots=True)
class Progress:
    """How far a pull is, from the engine's reports (ImageCreate).

    >>> progress = Progress()
    >>> progress.take(PullReport("Already exists", "a"))
    >>> progress.take(PullReport("Downloading", "b", PullDetail(3 * MB, 9 * MB)))
    >>> str(progress)
    'pulling image: 1 of 2 layers, 3 of 9 MB'
    """

    layers: dict[str, Layer] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.layers:
            return "pulling image"
        done = sum(layer.done for layer in self.layers.values())
        words = f"pulling image: {done} of {len(self.layers)} layers"
        if total := sum(layer.total for layer in self.layers.values()):
            current = sum(layer.current for layer in self.layers.values())
            words += f", {current // MB} of {total // MB} MB"
        return words

    def take(self, report: PullReport) -> None:
        """Take a report in."""
        if not report.id or report.status not in LAYER:
            return
        layer, detail = self.layers.setdefault(report.id, Layer()), report.detail or PullDetail()
        if report.status == "Downloading":
            layer.total = max(layer.total, detail.total)
            layer.current = max(layer.current, detail.current)
        elif report.status not in ("Pulling fs layer", "Waiting"):
            layer.current = layer.total
        layer.done = layer.done or report.status in DONE

    @property
    def done(self) -> int:
        """Layers that are complete."""
        return sum(layer.done for layer in self.layers.values())


@dataclass(slots=True, eq=False)
class Pull:
    """A pull in progress, and who waits for it."""

    task: asyncio.Task[None] = field(init=False)
    progress: Progress = field(default_factory=Progress)
    waiting: list[Tell] = field(default_factory=list)
    watching: list[Tell] = field(default_factory=list)

    def tell(self) -> None:
        """Pass the progress to every start that waits."""
        for tell in self.watching:
            tell(str(self.progress))

    def say(self, line: str) -> None:
        """Write a line to the log of every service that waits."""
        for say in self.waiting:
            say(line)


class Images:
    """Provides images; a pull goes on as long as a start waits for it."""

    def __init__(self, api: DockerApi, logins: Logins) -> None:
        self._api = api
        self._logins = logins
        self._pulls: dict[str, Pull] = {}

    async def close(self) -> None:
        """Cancel all pulls."""
        await tasks.cancel(*(pull.task for pull in self._pulls.values()))

    async def provide(self, launch: DockerLaunch, say: Tell, tell: Tell) -> None:
        """Make sure that the image of a service exists; pull it as declared.

        Args:
            launch: Names the image, and when to pull it.
            say: Takes a line of progress for the log, from time to time.
            tell: Takes the progress whenever the engine reports some.

        Raises:
            RuntimeFailureError: The image cannot be provided; says what to do.
        """
        try:
            if launch.pull != "always" and await self._exists(launch.image):
                return
            if launch.pull == "never":
                raise RuntimeFailureError(explain(launch, "no such image"))
            await self._join(launch, say, tell)
        except RefusedError as error:
            raise RuntimeFailureError(explain(launch, error.message)) from error

    async def _exists(self, image: str) -> bool:
        return await self._api.find(f"/images/{image}/json", dict[str, object]) is not None

    async def _join(self, launch: DockerLaunch, say: Tell, tell: Tell) -> None:
        """Wait for the pull of an image: the first start begins it, and the last to leave cancels it."""
        pull = self._pulls.get(launch.image)
        if pull is None:
            pull = self._pulls[launch.image] = Pull()
            pull.task = tasks.spawn(self._pull(launch, pull), f"pull {launch.image}")
        pull.waiting.append(say)
        pull.watching.append(tell)
        tell(str(pull.progress))
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiting.remove(say)
            pull.watching.remove(tell)
            if not pull.waiting:
                self._pulls.pop(launch.image)
                if not pull.task.done():
                    say(f"gave up pulling image {launch.image}: nobody waits for it any more")
                await tasks.cancel(pull.task)

    async def _pull(self, launch: DockerLaunch, pull: Pull) -> None:
        pull.say(f"pulling image {launch.image}")
        progress, said, done = pull.progress, time.monotonic(), 0
        login = await self._logins.find(launch.image)
        headers = {"X-Registry-Auth": login.header()} if login else {}
        params = pull_params(launch.image)
        pulling = self._api.documents("POST", "/images/create", PullReport, SILENCE, headers, **params)
        async with aclosing(pulling) as reports:
            async for report in reports:
                if report.error:
                    raise RuntimeFailureError(explain(launch, report.error))
                progress.take(report)
                pull.tell()
                if progress.done > done or time.monotonic() > said + SAY_EVERY:
                    said, done = time.monotonic(), progress.done
                    pull.say(str(progress))
        if not await self._exists(launch.image):
            raise RuntimeFailureError(f"the pull of image {launch.image} broke off: try again")
        pull.say(f"pulled image {launch.image}")


def pull_params(image: str) -> dict[str, str]:
    """Return the parameters that name an image; without a tag the engine would pull all of them.

    >>> pull_params("localhost:5000/a"), pull_params("a:1")["tag"], "tag" in pull_params("a@sha256:0")
    ({'fromImage': 'localhost:5000/a', 'tag': 'latest'}, '1', False)
    """
    if "@" in image:
        return {"fromImage": image}
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        return {"fromImage": image, "tag": "latest"}
    return {"fromImage": name, "tag": tag}
