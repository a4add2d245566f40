"""`ai-proxy engines`: engines that run by themselves."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_proxy.cli.output import FormatOption, PortOption, RunDirOption, show
from ai_proxy.platform.run_folder import NotRunningError

if TYPE_CHECKING:
    from ai_proxy.core.detection import Detection

app = typer.Typer(help="Engines that run by themselves.", no_args_is_help=True)


@app.callback()
def engines() -> None:
    """Engines that run by themselves."""


@app.command()
def detect(
    ctx: typer.Context,
    *,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="The only one to look for: `ollama`, `vllm`, ...")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again what is known already.")] = False,
    output: FormatOption = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Look for llama.cpp, vLLM, Ollama and LM Studio on this machine; no ai-proxy needs to run for it."""
    from ai_proxy.cli.tables import print_engines

    with _patience():
        try:
            found = _ask_server(run_dir, port, engine, fresh=fresh)
        except NotRunningError:
            if port is not None:
                raise
            found = _look_here(engine)
    show(ctx, output, found, lambda: print_engines(found))


def _patience() -> AbstractContextManager[object]:
    """Show at a terminal that something goes on: an engine that hangs takes seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status("looking for engines") if console.is_terminal else nullcontext()


def _ask_server(
    run_dir: Path | None, port: int | None, engine: str | None, *, fresh: bool
) -> list[dict[str, Any]]:
    """Have the running instance look: it knows what it runs itself."""
    from ai_proxy.cli.client import Server, ask

    query = {"engine": engine} if engine else {}

    async def post(server: Server) -> dict[str, Any]:
        return await server.post("/api/v1/engines/detect", fresh=int(fresh), **query)

    found: list[dict[str, Any]] = ask(run_dir, port, post)["engines"]
    return found


def _look_here(engine: str | None) -> list[dict[str, Any]]:
    """Look without a running instance."""
    import asyncio
    import json
    from dataclasses import asdict

    found = asyncio.run(_detect(engine))
    told: list[dict[str, Any]] = json.loads(json.dumps([asdict(one) for one in found]))
    return told


async def _detect(engine: str | None) -> Sequence["Detection"]:
    """Look for engines as the configuration says, if there is one."""
    import os

    import aiohttp

    from ai_proxy.config.build import engine_settings
    from ai_proxy.config.load import find_config, load_config
    from ai_proxy.config.schema import Config
    from ai_proxy.engines.detect.cache import MemoryCache
    from ai_proxy.engines.detect.detector import Detector
    from ai_proxy.platform.clock import SystemClock

    path = find_config(None, os.environ, Path.cwd())
    settings = engine_settings(load_config(path, os.environ) if path else Config())
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:
        detector = Detector(session, clock, MemoryCache(clock, settings.cache_ttl), settings, os.environ)
        return await detector.detect(engine)
