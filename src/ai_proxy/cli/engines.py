"""`ai-proxy engines`: detects engines on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_proxy.cli.output import FormatOption, PortOption, RunDirOption, show, spinner
from ai_proxy.platform.run_folder import NotRunningError

if TYPE_CHECKING:
    from ai_proxy.core.detection import Detection

app = typer.Typer(help="Detect engines on this machine.", no_args_is_help=True)


@app.callback()
def engines() -> None:
    """Detect engines on this machine."""


@app.command()
def detect(
    ctx: typer.Context,
    *,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="The only engine to detect: `ollama`, `vllm`, ...")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore cached results.")] = False,
    output: FormatOption = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Detect llama.cpp, vLLM, Ollama and LM Studio on this machine; needs no running ai-proxy."""
    from ai_proxy.cli.tables import print_engines

    with spinner("detecting engines"):
        try:
            found = _ask_server(run_dir, port, engine, fresh=fresh)
        except NotRunningError:
            if port is not None:
                raise
            found = _detect_here(engine)
    show(ctx, output, found, lambda: print_engines(found))


def _ask_server(
    run_dir: Path | None, port: int | None, engine: str | None, *, fresh: bool
) -> list[dict[str, Any]]:
    """Ask the running instance, which knows the services it runs itself."""
    from ai_proxy.cli.client import Server, ask

    query = {"engine": engine} if engine else {}

    async def post(server: Server) -> dict[str, Any]:
        return await server.post("/api/v1/engines/detect", fresh=int(fresh), **query)

    found: list[dict[str, Any]] = ask(run_dir, port, post)["engines"]
    return found


def _detect_here(engine: str | None) -> list[dict[str, Any]]:
    """Detect engines without a running instance."""
    import asyncio
    import json
    from dataclasses import asdict

    found = asyncio.run(_detect(engine))
    data: list[dict[str, Any]] = json.loads(json.dumps([asdict(one) for one in found]))
    return data


async def _detect(engine: str | None) -> Sequence["Detection"]:
    """Detect engines with the configured settings."""
    import os

    import aiohttp

    from ai_proxy.config.build import engine_settings
    from ai_proxy.config.load import configuration
    from ai_proxy.engines.catalog import find_engines
    from ai_proxy.engines.detect.detector import Detector, MemoryCache
    from ai_proxy.platform.clock import SystemClock

    settings = engine_settings(configuration(None, os.environ)[1])
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:
        detector = Detector(
            find_engines().values(),
            session,
            clock,
            MemoryCache(clock, settings.cache_ttl),
            settings,
            os.environ,
        )
        return await detector.detect(engine)
