"""The genuine llama.cpp, embedded, with the model that comes with the package."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from ai_proxy.core.service import Handle, ProcessLaunch, Service, Upstream
from ai_proxy.data import DEMO_SENTENCE, demo_model_path
from ai_proxy.engines.http import HttpEngine
from ai_proxy.engines.llamacpp import LLAMACPP
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process.runtime import ProcessRuntime
from ai_proxy.testing.contracts import exit_of, start

pytest.importorskip("xllamacpp", reason="the extra 'llamacpp' is not installed")

EMBEDDED = (sys.executable, "-m", "ai_proxy.engines.llamacpp_embedded")
MODEL = str(demo_model_path())


@dataclass(frozen=True, slots=True)
class Served:
    engine: HttpEngine
    session: aiohttp.ClientSession
    service: Service
    handle: Handle

    @property
    def upstream(self) -> Upstream:
        return self.handle.upstreams[0]

    async def chat(self, **parameters: object) -> str:
        body = {"messages": [{"role": "user", "content": "Tell me."}], "temperature": 0, **parameters}
        async with self.session.post(f"{self.upstream.url}/v1/chat/completions", json=body) as response:
            return await response.text()


@asynccontextmanager
async def serving(state_dir: Path, *flags: str, api_key: str | None = None) -> AsyncIterator[Served]:
    """Run the demo model as the proxy would where there is no llama-server, until it is ready."""
    command = ("no-llama-server-here", "-m", MODEL, "--port", "${port}", "-t", "1", *flags)
    launch = ProcessLaunch(command, fallback=EMBEDDED)
    service = Service("demo", "llama-cpp-server", "llamacpp", launch, config_hash="1", api_key=api_key)
    runtime = ProcessRuntime(state_dir, owner=str(state_dir), background=Background())
    handle = await start(runtime, service)
    async with aiohttp.ClientSession() as session:
        served = Served(HttpEngine(LLAMACPP.profile, session), session, service, handle)
        async with asyncio.timeout(60):
            while not (await served.engine.probe(service, served.upstream)).ready:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield served
    await runtime.stop(handle, grace=5.0)
    assert (await exit_of(runtime, handle)).code in (0, -signal.SIGTERM)


async def test_it_recites_its_sentence_and_lists_its_model(tmp_path: Path) -> None:
    async with serving(tmp_path, "-a", "recite") as served:
        (model,) = await served.engine.models(served.service, served.upstream)
        assert (model.id, model.context_length) == ("recite", 8192)
        assert f'"content":"{DEMO_SENTENCE}"' in await served.chat()
        assert "data: [DONE]" in await served.chat(stream=True)


async def test_its_key_is_sent_to_list_models_and_not_needed_for_readiness(tmp_path: Path) -> None:
    async with serving(tmp_path, "--api-key", "secret", api_key="secret") as served:
        assert await served.engine.models(served.service, served.upstream)
        keyless = Service("demo", "llama-cpp-server", "llamacpp", served.service.launch, config_hash="1")
        assert (await served.engine.probe(keyless, served.upstream)).ready
        assert list(await served.engine.models(keyless, served.upstream)) == []


async def run_embedded(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(*EMBEDDED, *arguments, stdout=DEVNULL, stderr=PIPE)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 1, "-m must name a model file"),
        (("-m", "/no/such.gguf"), 1, "there is none at '/no/such.gguf'"),
        (("-m", __file__), 1, "could not load"),
        (("-m", MODEL, "--draft", "x.gguf"), 1, "does not know --draft x.gguf; it knows -m, --model"),
        (("-m", MODEL, "--port", "no"), 2, "invalid int value: 'no'"),
    ],
)
async def test_what_is_wrong_is_said_on_stderr(arguments: tuple[str, ...], code: int, message: str) -> None:
    process = await run_embedded(*arguments)
    _, errors = await process.communicate()
    assert process.returncode == code
    assert message in errors.decode()


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [
        ("raise ModuleNotFoundError('xllamacpp')", "the embedded llama.cpp is not installed: install"),
        (
            "raise ImportError('libgomp.so.1: cannot open shared object file')",
            "cannot be loaded: libgomp.so.1: cannot open shared object file; install that library",
        ),
    ],
)
async def test_a_wheel_that_cannot_be_imported_is_reported(
    tmp_path: Path, stand_in: str, message: str
) -> None:
    (tmp_path / "xllamacpp.py").write_text(stand_in)
    process = await asyncio.create_subprocess_exec(
        *EMBEDDED, "-m", MODEL, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert message in errors.decode()


async def test_a_signal_ends_it_politely() -> None:
    process = await run_embedded("-m", MODEL, "--port", "0", "-t", "1")
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if b"listening" in line:
                break
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert process.returncode in (0, -signal.SIGINT)
