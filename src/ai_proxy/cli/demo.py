"""The demonstration: a streamed chat through the proxy with a backend that the proxy starts."""

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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from ai_proxy.cli.answer import Answer, Piece, receive
from ai_proxy.cli.output import OK, UserError, say
from ai_proxy.data import demo_model_path
from ai_proxy.platform.tasks import spawn

HOST = "127.0.0.1"
DEFAULT_PORT = 11000
CHAT_PATH = "/service/demo/v1/chat/completions"
PROMPT = "Tell me about yourself in one sentence."
START_WITHIN = 15.0
"""Seconds for the proxy to answer."""
STOP_WITHIN = 30.0
"""Seconds for the proxy and its backends to exit."""
ROUNDS = 200
"""Pairs of requests, one to the backend and one through the proxy, that measure the added time."""


async def run_demo(*, model: Path | None, port: int | None, once: bool) -> int:
    """Run the demonstration and return the exit code.

    Args:
        model: A GGUF file; None for the tiny model in the package.
        port: TCP port of the proxy; None for a free one.
        once: Whether to exit after the chat instead of at Ctrl-C.

    Raises:
        UserError: The proxy or its backend did not start.
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
                say(invitation(_url(port), port))
                with contextlib.suppress(asyncio.CancelledError):
                    await server.wait()
    return OK


def free_port() -> int:
    """Return the proxy's default port if it is free, else another free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, DEFAULT_PORT))
            return DEFAULT_PORT
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def configuration(port: int, model: Path) -> str:
    """Return a configuration with one service, as JSON, which is also YAML."""
    service = {"type": "llama-cpp-server", "runtime": "process", "args": ["-m", str(model.absolute())]}
    return json.dumps({"server": {"host": HOST, "port": port}, "services": {"demo": service}}, indent=2)


def invitation(url: str, port: int) -> str:
    """Return the commands to try while the demonstration serves."""
    program = own_program(Path(sys.executable), Path.cwd())
    return f"""
Serving at {url}, until Ctrl-C. Try:
  curl -N {url}{CHAT_PATH} -d '{{"messages": [{{"role": "user", "content": "Hello"}}], "stream": true}}'
  {program} ps --port {port}
  {program} logs demo --port {port}
  {program} unload demo --port {port}
API: {url}/docs   Measurements: {url}/metrics"""


def own_program(python: Path, folder: Path) -> str:
    """Return the command that runs this program from a folder; the environment of a clone is not on PATH.

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
    """Make SIGTERM cancel the demonstration as Ctrl-C does, so that it cleans up."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def _child(command: list[str], folder: Path) -> AsyncIterator[Process]:
    """Run the proxy while the context lasts, in a session of its own so that Ctrl-C reaches only us.

    Its log and its data are below `folder`, so the user's keys and policy stay untouched.
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
    """Chat twice, and print the measurements."""
    say(f"POST {_url(port)}{CHAT_PATH}\n")
    cold = await _chat(session, log, lambda piece: say(piece.text, nl=False))
    say()
    warm = await _chat(session, log, lambda _: None)
    async with session.get("/api/v1/service/demo") as response:
        service = await response.json()
    added = await _added_by_proxy(session, service["upstreams"][0])
    first_cold, first_warm = cold.first or 0.0, warm.first or 0.0
    say(
        f"""
first token: {first_cold * 1000:.0f} ms including the backend's start, {first_warm * 1000:.1f} ms when it runs
speed: {warm.tokens_per_second or 0:.0f} tokens per second
added by the proxy: {added * 1000:.2f} ms per request (median of {ROUNDS})
endpoints: {_url(port)}/service/demo/v1  {_url(port)}/docs  {_url(port)}/metrics"""
    )


async def _chat(session: aiohttp.ClientSession, log: Path, on: Callable[[Piece], object]) -> Answer:
    messages = [{"role": "user", "content": PROMPT}]
    answer = Answer()
    try:
        await receive(
            session, CHAT_PATH, {"messages": messages, "temperature": 0, "max_tokens": 128}, answer, on
        )
    except UserError as error:
        raise UserError(f"the chat failed: {error}\n{_tail(log)}", "demo_failed") from error
    if not answer.text:
        raise UserError(f"the model returned no text\n{_tail(log)}", "demo_failed")
    return answer


async def _added_by_proxy(session: aiohttp.ClientSession, upstream: str) -> float:
    """Return the seconds that the proxy adds to a small request; direct and proxied requests alternate."""
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
