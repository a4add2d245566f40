"""Images pulled from a registry that the test serves itself; Docker trusts those on loopback."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from tests.integration.docker.conftest import Open, eventually, sleeper
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.placement import AS_DECLARED
from ai_proxy.core.ports import Tell
from ai_proxy.platform import tasks
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import exit_of, start

GIVEN_UP = "pull after error: context canceled"
"""What the engine says of a pull that it was told to end."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_layer(name: str, size: int) -> tuple[bytes, str]:
    """Return a layer with one file, and the digest of what it unpacks to."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(os.urandom(size)))
    return gzip.compress(plain.getvalue(), 1), digest(plain.getvalue())


@dataclass
class Registry:
    """Serves one image of two layers; the second layer stops halfway until `go_on` is set.

    Attributes:
        login: `user:password`, if it serves nobody else.
    """

    login: str = ""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""
    slow: str = ""
    manifests_asked: int = 0
    image: str = ""

    @property
    def host(self) -> str:
        """As logins are kept for it."""
        return self.image.partition("/")[0]

    def __post_init__(self) -> None:
        small, large = make_layer("small", 1000), make_layer("large", 6_000_000)
        rootfs = {"type": "layers", "diff_ids": [small[1], large[1]]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        self.blobs = {digest(data): data for data in (config, small[0], large[0])}
        self.slow = digest(large[0])
        kinds = ("container.image.v1+json", *["image.rootfs.diff.tar.gzip"] * 2)
        described = [
            {"mediaType": f"application/vnd.docker.{kind}", "size": len(data), "digest": name}
            for kind, (name, data) in zip(kinds, self.blobs.items(), strict=True)
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        self.manifest = json.dumps(manifest).encode()

    async def answer_manifest(self, request: web.Request) -> web.Response:
        if request.match_info["tag"] not in ("1", digest(self.manifest)):
            raise web.HTTPNotFound(
                text='{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}',
                content_type="application/json",
            )
        self.manifests_asked += 1
        headers = {"Docker-Content-Digest": digest(self.manifest)}
        return web.Response(body=self.manifest, content_type=MANIFEST, headers=headers)

    async def answer_blob(self, request: web.Request) -> web.StreamResponse:
        data = self.blobs[request.match_info["digest"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if request.match_info["digest"] == self.slow:
            await self.go_on.wait()
        await response.write(data[len(data) // 2 :])
        return response

    @web.middleware
    async def ask_for_login(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        told = base64.b64encode(self.login.encode()).decode()
        if self.login and request.headers.get("Authorization") != f"Basic {told}":
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="tests"'})
        return await handler(request)


async def answer_version(request: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def serve(registry: Registry) -> AsyncIterator[None]:
    app = web.Application(middlewares=[registry.ask_for_login])
    app.router.add_get("/v2/", answer_version)
    app.router.add_get("/v2/model/manifests/{tag}", registry.answer_manifest)
    app.router.add_get("/v2/model/blobs/{digest}", registry.answer_blob)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    registry.image = f"127.0.0.1:{runner.addresses[0][1]}/model"
    yield
    registry.go_on.set()
    await runner.cleanup()


@pytest.fixture
async def registry(engine: DockerEngine) -> AsyncIterator[Registry]:
    registry = Registry()
    async with serve(registry):
        yield registry
    engine.docker("rmi", "--force", f"{registry.image}:1", check=False)


def quiet(words: str) -> None:
    """Drop progress."""


async def ended(runtime: DockerRuntime, image: str, pull: str = "missing", tell: Tell = quiet) -> str:
    """Start the image, which has no program, and return how that ended."""
    handle = await runtime.start(sleeper(image=image, pull=pull), AS_DECLARED, tell)
    return (await exit_of(runtime, handle)).detail


async def test_a_missing_image_is_pulled_and_its_progress_is_told(
    registry: Registry, runtime: DockerRuntime
) -> None:
    told: list[str] = []
    starting = tasks.spawn(ended(runtime, f"{registry.image}:1", tell=told.append), "start")
    await halfway(told)
    registry.go_on.set()
    assert "a program that is not in the image" in await starting
    lines = [line.text for line in runtime.logs("backend").tail(100)]
    assert lines[0] == f"pulling image {registry.image}:1"
    assert f"pulled image {registry.image}:1" in lines


async def test_an_image_that_is_there_is_pulled_again_only_if_always(
    registry: Registry, runtime: DockerRuntime
) -> None:
    registry.go_on.set()
    asked = []
    for pull in ("missing", "missing", "always"):
        await ended(runtime, f"{registry.image}:1", pull)
        asked.append(registry.manifests_asked)
    assert asked[0] == asked[1] < asked[2]


async def halfway(told: list[str]) -> None:
    """Wait until the progress told is in the middle of the second layer."""
    await eventually(lambda: (told and told[-1].startswith("pulling image: 1 of 2 layers, ")) or None)


async def test_one_pull_serves_all_and_goes_on_when_one_of_them_leaves(
    registry: Registry, runtime: DockerRuntime
) -> None:
    image = f"{registry.image}:1"
    heard_first: list[str] = []
    first = runtime.start(sleeper("impatient", image=image, pull="missing"), AS_DECLARED, heard_first.append)
    impatient = tasks.spawn(first, "start")
    await halfway(heard_first)
    asked = registry.manifests_asked
    heard_second: list[str] = []
    patient = tasks.spawn(ended(runtime, image, tell=heard_second.append), "start")
    await halfway(heard_second)
    await tasks.cancel(impatient)
    registry.go_on.set()
    await patient
    assert registry.manifests_asked == asked
    assert f"pulled image {image}" in [line.text for line in runtime.logs("backend").tail(100)]


async def test_a_pull_that_nobody_waits_for_any_more_is_given_up(
    registry: Registry, engine: DockerEngine, runtime: DockerRuntime
) -> None:
    image = f"{registry.image}:1"
    told: list[str] = []
    starting = tasks.spawn(ended(runtime, image, tell=told.append), "start")
    await halfway(told)
    given_up = engine.log.read_text().count(GIVEN_UP)
    await tasks.cancel(starting)
    await eventually(lambda: engine.log.read_text().count(GIVEN_UP) > given_up or None)
    registry.go_on.set()
    assert "exit code 127" in await ended(runtime, image)


def write_login(folder: Path, registry: Registry) -> None:
    """Write what `docker login` writes."""
    auth = base64.b64encode(b"me:secret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))


def install_helper(folder: Path, registry: Registry) -> None:
    """Install a credential helper that knows the login of the registry."""
    helper = folder / "docker-credential-tests"
    helper.write_text(
        f"""#!/bin/sh
read server
[ "$1 $server" = "get {registry.host}" ] && echo '{{"Username": "me", "Secret": "secret"}}'
"""
    )
    helper.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"credsStore": "tests"}))


@pytest.mark.parametrize("log_in", [write_login, install_helper])
async def test_an_image_that_wants_a_login_is_pulled_with_that_of_docker_login(
    registry: Registry,
    open_runtime: Open,
    tmp_path: Path,
    log_in: Callable[[Path, Registry], None],
) -> None:
    registry.login = "me:secret"
    registry.go_on.set()
    runtime = open_runtime(environ={"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path)})
    with pytest.raises(RuntimeFailureError, match="run 'docker login' as the proxy's user"):
        await start(runtime, sleeper(image=f"{registry.image}:1", pull="missing"))
    log_in(tmp_path, registry)
    assert "exit code 127" in await ended(runtime, f"{registry.image}:1")


async def test_an_image_the_registry_does_not_have(registry: Registry, runtime: DockerRuntime) -> None:
    with pytest.raises(RuntimeFailureError) as caught:
        await start(runtime, sleeper(image=f"{registry.image}:2", pull="missing"))
    assert f"image {registry.image}:2 is not in its registry" in caught.value.detail


async def test_an_engine_that_dies_while_it_pulls(
    registry: Registry, engine: DockerEngine, open_runtime: Open
) -> None:
    runtime = open_runtime()
    told: list[str] = []
    starting = tasks.spawn(ended(runtime, f"{registry.image}:1", tell=told.append), "start")
    await halfway(told)
    engine.kill()
    with pytest.raises(RuntimeFailureError):
        await starting
    engine.start()
    registry.go_on.set()
    assert "exit code 127" in await ended(runtime, f"{registry.image}:1")
