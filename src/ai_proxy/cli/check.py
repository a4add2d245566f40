"""`ai-proxy check`: checks the whole installation."""

from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.cli.output import OK, USER_ERROR, ConfigOption, FormatOption, RunDirOption, say, show

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def add_to(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(check)


def check(
    ctx: typer.Context,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Fix permissions of files and folders.")] = False,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    output: FormatOption = None,
) -> None:
    """Check the whole installation and suggest fixes."""
    import asyncio
    import os
    import time
    from dataclasses import asdict

    from loguru import logger

    from ai_proxy.config.load import find_config
    from ai_proxy.doctor.examine import examine
    from ai_proxy.doctor.finding import Level, count
    from ai_proxy.doctor.folders import repair
    from ai_proxy.doctor.installation import load_installation
    from ai_proxy.platform.data_folder import data_folder
    from ai_proxy.platform.run_folder import base_folder

    path = find_config(config, os.environ, Path.cwd())
    installation = load_installation(path, data_folder(), base_folder(run_dir), os.environ, time.time())
    logger.disable("ai_proxy")  # the findings replace the log
    try:
        findings = asyncio.run(examine(installation))
        fixed = repair(findings) if fix else []
        if fixed:
            findings = asyncio.run(examine(installation))
    finally:
        logger.enable("ai_proxy")
    problems, warnings = count(findings, Level.PROBLEM), count(findings, Level.WARNING)
    shown = [{key: asdict(one)[key] for key in ("subject", "level", "text", "fix")} for one in findings]
    data = {"findings": shown, "problems": problems, "warnings": warnings, "fixed": list(map(str, fixed))}

    def tell() -> None:
        width = max(len(one.subject) for one in findings)
        for one in findings:
            typer.secho(f"{one.level:7}", fg=COLOURS[one.level], nl=False)
            fix = f" -> {one.fix}" if one.fix else ""
            say(f"  {one.subject:{width}}  {one.text}{fix}")
        for done in fixed:
            say(f"fixed the mode of {done}")
        say(_summary(problems, warnings))

    show(ctx, output, data, tell)
    raise typer.Exit(USER_ERROR if problems else OK)


def _summary(problems: int, warnings: int) -> str:
    """Return the number of problems and warnings as text.

    >>> _summary(0, 0), _summary(1, 2)
    ('no problems', '1 problem, 2 warnings')
    """
    counts = [(problems, "problem"), (warnings, "warning")]
    parts = [f"{number} {word}{'s' if number > 1 else ''}" for number, word in counts if number]
    return ", ".join(parts) or "no problems"
