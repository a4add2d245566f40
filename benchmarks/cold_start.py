"""What the first request to a stopped container waits for beyond the container itself.

The same container is started in turn by the proxy, for a request, and by hand, through the Engine API:
created, started, asked for its health and its models until it is ready, then sent the same request.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
from tests.rigs.docker_engine import DockerEngine, private_engine

from ai_proxy.core.service import DockerLaunch, Mount
from ai_proxy.data import demo_model_path
from ai_proxy.runtimes.docker.access import Access
from ai_proxy.runtimes.docker.answers import Container
from ai_proxy.runtimes.docker.api import DockerApi
from ai_proxy.runtimes.docker.spec import make_body
from benchmarks.processes import Cores, free_port, running
from benchmarks.proxies import Recipe, Setting, environment
from benchmarks.report import markdown_table

MAKE_IMAGE = Path(__file__).parent.parent / "scripts/make_image"
IMAGE = "ai-proxy/bench"
PORT = 8080
ROUNDS = 7
LIMIT_MS = 100.0
PROBE_INTERVAL = 0.005
TIMEOUT = 60.0
MODEL = "/models/recite.gguf"
REQUEST = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 1}
_CONFIG = """\
services:
  model:
    type: llama-cpp-server
    image: {image}
    docker: {{pull: never}}
    volumes: ["{models}:/models:ro"]
    args: ["-m", "{model}", "-c", "512"]
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds from nothing to an answer, once through the proxy, once by hand."""

    proxy: float
    by_hand: float


def overhead_ms(pairs: Sequence[Pair]) -> float:
    """Return the median of what the proxy took beyond the container, in milliseconds.

    >>> overhead_ms([Pair(0.75, 0.5), Pair(0.5, 0.5), Pair(1.125, 1.0)])
    125.0
    """
    return 1000 * median(pair.proxy - pair.by_hand for pair in pairs)


def section(pairs: Sequence[Pair]) -> str:
    """Return what is told of the measurement."""
    overhead = overhead_ms(pairs)
    lines = [
        ["through the proxy, ms", f"{1000 * median(pair.proxy for pair in pairs):.0f}", "", ""],
        ["by hand, ms", f"{1000 * median(pair.by_hand for pair in pairs):.0f}", "", ""],
        ["overhead, ms", f"{overhead:.0f}", f"{LIMIT_MS:g}", "held" if overhead <= LIMIT_MS else "MISSED"],
    ]
    head = [f"first request to a stopped container, medians of {len(pairs)}", "measured", "at most", ""]
    return markdown_table(head, lines)


def cold_start(cores: Cores) -> str:
    """Measure it on a private Docker engine; return the section of the report."""
    with private_engine() as engine, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        docker = {**os.environ, "DOCKER_HOST": engine.host}
        subprocess.run([sys.executable, MAKE_IMAGE, IMAGE], env=docker, check=True)
        with ExitStack() as stack:
            port = _serve(cores, Path(folder), engine, stack)
            return section(asyncio.run(_measure(port, engine.host)))


def _serve(cores: Cores, folder: Path, engine: DockerEngine, stack: ExitStack) -> int:
    """Start the proxy; return its port."""
    setting = Setting(free_port(), 0, folder)
    config = folder / "config.yaml"
    config.write_text(_CONFIG.format(image=IMAGE, models=demo_model_path().parent, model=MODEL))
    program = str(Path(sys.executable).with_name("ai-proxy"))
    command = (program, "serve", "--config", str(config), "--port", str(setting.port))
    variables = environment(setting, Recipe(command, "", {"DOCKER_HOST": engine.host}))
    stack.enter_context(running(command, cores.proxy, folder / "output.log", variables))
    return setting.port


async def _measure(port: int, host: str) -> list[Pair]:
    """Do both in turn; the first pair, when nothing is in any cache yet, does not count."""
    api = DockerApi(host)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            await _until_ok(session, f"http://127.0.0.1:{port}/health")
            pairs = [
                Pair(await _by_proxy(session, port), await _by_hand(session, api)) for _ in range(ROUNDS + 1)
            ]
    finally:
        await api.close()
    return pairs[1:]


async def _by_proxy(session: aiohttp.ClientSession, port: int) -> float:
    begun = time.perf_counter()
    await _ask(session, f"http://127.0.0.1:{port}/service/model")
    took = time.perf_counter() - begun
    async with session.post(
        f"http://127.0.0.1:{port}/api/v1/service/model/unload?wait={TIMEOUT:g}"
    ) as answer:
        answer.raise_for_status()
    return took


async def _by_hand(session: aiohttp.ClientSession, api: DockerApi) -> float:
    launch = DockerLaunch(
        IMAGE,
        PORT,
        args=("-m", MODEL, "-c", "512"),
        mounts=(Mount(str(demo_model_path().parent), "/models", read_only=True),),
    )
    begun = time.perf_counter()
    ref = await api.create("by-hand", make_body(launch, {}, Access()))
    await api.post(f"/containers/{ref}/start")
    url = _url(await api.inspect(ref))
    await _until_ok(session, f"{url}/health")
    await _until_ok(session, f"{url}/v1/models")
    await _ask(session, url)
    took = time.perf_counter() - begun
    await api.delete(f"/containers/{ref}", force=1)
    return took


def _url(container: Container | None) -> str:
    endpoints = (container.network_settings.networks or {}).values() if container else ()
    return f"http://{next(endpoint.ip_address for endpoint in endpoints)}:{PORT}"


async def _until_ok(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not await _is_ok(session, url):  # noqa: ASYNC110
            await asyncio.sleep(PROBE_INTERVAL)


async def _is_ok(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _ask(session: aiohttp.ClientSession, base: str) -> None:
    async with session.post(f"{base}/v1/chat/completions", json=REQUEST) as answer:
        answer.raise_for_status()
        await answer.read()
