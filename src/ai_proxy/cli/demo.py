"""The demonstration: a chat that streams through the proxy out of a backend that the proxy starts itself."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import typer

from ai_proxy.cli.output import OK, UserError
from ai_proxy.data import demo_model_path
from ai_proxy.platform.tasks import spawn

HOST = "127.0.0.1"
USUAL_PORT = 11000
CHAT_PATH = "/service/demo/v1/chat/completions"
PROMPT = "Tell me about yourself in one sentence."
START_WITHIN = 15.0
"""Seconds for the proxy to answer."""
STOP_WITHIN = 30.0
"""Seconds for the proxy to end, and its backends with it."""
ROUNDS = 200
"""Pairs of requests, one to the backend and one through the proxy, from which the added time is told."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A streamed answer, measured; times in seconds from the request.

    Attributes:
        pieces: Parts of the answer, about one token each.
        first: When the first came.
        last: When the last came.
    """

    pieces: int
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Tokens per second, once the first has come."""
        took = self.last - self.first
        return (self.pieces - 1) / took if took > 0 else 0.0


async def run_demo(*, model: Path | None, port: int | None, once: bool) -> int:
    """Show the proxy at work, and return the exit code.

    Args:
        model: A GGUF file; None for the tiny model of the package.
        port: TCP port of the proxy; None for a free one.
        once: Whether to stop everything after one chat, instead of at Ctrl-C.

    Raises:
        UserError: The proxy or its backend could not be started.
    """
    port = port or free_port()
    _end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="ai-proxy-demo-") as name:
        folder = Path(name)
        command = _prepare(folder, port, model or demo_model_path(), private=once)
        async with _child(command, folder) as server, aiohttp.ClientSession(_url(port)) as session:
            await _until_healthy(session, server, folder / "log")
            await _show(session, port, folder / "log")
            if not once:
                typer.echo(invitation(_url(port), port))
                with contextlib.suppress(asyncio.CancelledError):
                    await server.wait()
    return OK


def free_port() -> int:
    """Return the proxy's usual port if nobody has it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, USUAL_PORT))
            return USUAL_PORT
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def configuration(port: int, model: Path) -> str:
    """Return a configuration with one service; it is JSON, and so it is YAML."""
    service = {"type": "llama-cpp-server", "runtime": "process", "args": ["-m", str(model.absolute())]}
    return json.dumps({"server": {"host": HOST, "port": port}, "services": {"demo": service}}, indent=2)


def invitation(url: str, port: int) -> str:
    """Return what to try while the demonstration keeps serving."""
    program = own_program(Path(sys.executable), Path.cwd())
    return f"""
Serving at {url}, until Ctrl-C. Try:
  curl -N {url}{CHAT_PATH} -d '{{"messages": [{{"role": "user", "content": "Hello"}}], "stream": true}}'
  {program} ps --port {port}
  {program} logs demo --port {port}
  {program} unload demo --port {port}
API: {url}/docs   Measurements: {url}/metrics"""


def own_program(python: Path, folder: Path) -> str:
    """Return how to call this program from a folder: the environment of a clone is not on PATH.

    >>> own_program(Path("/src/clone/.venv/bin/python"), Path("/src/clone"))
    '.venv/bin/ai-proxy'
    >>> own_program(Path("/usr/bin/python"), Path("/src/clone"))
    'ai-proxy'
    """
    program = python.with_name("ai-proxy")
    return str(program.relative_to(folder)) if program.is_relative_to(folder) else "ai-proxy"


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _prepare(folder: Path, port: int, model: Path, *, private: bool) -> list[str]:
    """Write the configuration and return the command that serves it."""
    config = folder / "config.yaml"
    config.write_text(configuration(port, model), encoding="utf-8")
    command = [sys.executable, "-m", "ai_proxy.cli.main", "serve", "--config", str(config)]
    return [*command, "--run-dir", str(folder / "run")] if private else command


def _end_on_sigterm() -> None:
    """Have SIGTERM end the demonstration as Ctrl-C does: by cancelling it, so that it clears up."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def _child(command: list[str], folder: Path) -> AsyncIterator[Process]:
    """Run the proxy for as long as the context lasts; in its own session, since Ctrl-C is for us alone.

    What it logs and keeps is below a folder: the keys and policy of the user are neither needed nor touched.
    """
    environment = {**os.environ, "AI_PROXY_DATA_DIR": str(folder / "data")}
    with (folder / "log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        await asyncio.shield(spawn(_end(process), "demo-end"))


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _until_healthy(session: aiohttp.ClientSession, server: Process, log: Path) -> None:
    try:
        async with asyncio.timeout(START_WITHIN):
            while not await _is_healthy(session):
                if server.returncode is not None:
                    raise UserError(f"ai-proxy did not start:\n{_tail(log)}", "demo_failed")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise UserError(
            f"ai-proxy did not answer in {START_WITHIN:.0f} s:\n{_tail(log)}", "demo_failed"
        ) from None


async def _is_healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/health") as response:
            return response.ok
    except aiohttp.ClientError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


async def _show(session: aiohttp.ClientSession, port: int, log: Path) -> None:
    """Chat, and tell how it went."""
    typer.echo(f"POST {_url(port)}{CHAT_PATH}\n")
    cold = await _chat(session, log, print_it=True)
    warm = await _chat(session, log, print_it=False)
    async with session.get("/api/v1/service/demo") as response:
        service = await response.json()
    added = await _added_by_proxy(session, service["upstreams"][0])
    typer.echo(
        f"""
first token: {cold.first * 1000:.0f} ms with starting the backend, {warm.first * 1000:.1f} ms when it runs
speed: {warm.rate:.0f} tokens per second
added by the proxy: {added * 1000:.2f} ms per request (median of {ROUNDS})
endpoints: {_url(port)}/service/demo/v1  {_url(port)}/docs  {_url(port)}/metrics"""
    )


async def _chat(session: aiohttp.ClientSession, log: Path, *, print_it: bool) -> Chat:
    question = {
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "temperature": 0,
        "max_tokens": 128,
    }
    times: list[float] = []
    began = time.perf_counter()
    async with session.post(CHAT_PATH, json=question) as response:
        if not response.ok:
            raise UserError(f"the chat failed: {await response.text()}\n{_tail(log)}", "demo_failed")
        async for line in response.content:
            if piece := content_of(line):
                times.append(time.perf_counter() - began)
                if print_it:
                    typer.echo(piece, nl=False)
    if not times:
        raise UserError(f"the model said nothing\n{_tail(log)}", "demo_failed")
    if print_it:
        typer.echo()
    return Chat(len(times), times[0], times[-1])


def content_of(line: bytes) -> str:
    """Return the words in one line of a streamed chat completion.

    >>> content_of(b'data: {"choices": [{"delta": {"content": "the quick"}}]}')
    'the quick'
    >>> content_of(b'data: [DONE]'), content_of(b': loading')
    ('', '')
    """
    data = line.removeprefix(b"data:").strip()
    if data == line.strip() or data == b"[DONE]":
        return ""
    choices = json.loads(data).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


async def _added_by_proxy(session: aiohttp.ClientSession, upstream: str) -> float:
    """Return the seconds that the proxy adds to a small request; the two take turns on the same machine."""
    direct, proxied = [], []
    async with aiohttp.ClientSession() as backend:
        for _ in range(ROUNDS):
            direct.append(await _time(backend, f"{upstream}/health"))
            proxied.append(await _time(session, "/service/demo/health"))
    return statistics.median(proxied) - statistics.median(direct)


async def _time(session: aiohttp.ClientSession, url: str) -> float:
    began = time.perf_counter()
    async with session.get(url) as response:
        await response.read()
    return time.perf_counter() - began
