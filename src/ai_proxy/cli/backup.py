"""`ai-proxy backup`: saves all persistent data to one file, and restores it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, RunDirOption, UserError, say, show

if TYPE_CHECKING:
    from ai_proxy.persistence.backup import Restored

app = typer.Typer(help="Save all persistent data to one file, and restore it.", no_args_is_help=True)

NOT_INCLUDED = "not included: the configuration file, models, logs"
ELSEWHERE = "and the database, which is in PostgreSQL; save it with pg_dump"


@app.command()
def create(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="File to write. Default: a new file in this folder, named after the time."),
    ] = None,
    *,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Write keys, policy, audit log, certificates and their secrets to one file, also while a proxy runs."""
    import time
    from importlib.metadata import version

    from ai_proxy.persistence.backup import create_backup, file_moment
    from ai_proxy.persistence.database import database_file
    from ai_proxy.platform.data_folder import data_folder

    now, folder = time.time(), data_folder()
    database = database_file(_store_url(config), folder)
    target = file or Path(f"ai-proxy-backup-{file_moment(now)}.tar.gz")
    manifest = create_backup(
        folder, target, database=database, program=version("ai-inference-proxy"), now=now
    )
    size = target.stat().st_size
    data = {
        "file": str(target.absolute()),
        "bytes": size,
        "schema": manifest.schema,
        "created": manifest.created,
        "with_database": database is not None,
        "files": list(manifest.files),
    }
    lines = [f"wrote {target}, {size / 1024:.0f} KB:"]
    lines += [f"  {name}" for name in manifest.files]
    lines += [NOT_INCLUDED if database else f"{NOT_INCLUDED}, {ELSEWHERE}"]
    lines += ["it holds secrets that let anyone impersonate this proxy; keep it private"]
    show(ctx, output, data, lambda: say("\n".join(lines)))


@app.command()
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that 'backup create' wrote.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing data, which is moved to a folder beside it.")
    ] = False,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    output: FormatOption = None,
) -> None:
    """Restore a backup after verifying all of it; no proxy may be running."""
    import time

    from ai_proxy.persistence.backup import restore_backup
    from ai_proxy.persistence.database import database_file
    from ai_proxy.platform.data_folder import data_folder
    from ai_proxy.platform.run_folder import base_folder, running_instances

    folder = data_folder()
    database = database_file(_store_url(config), folder)
    if database is None and (running := running_instances(base_folder(run_dir))):
        ports = ", ".join(folder.name for folder in running)
        raise UserError(f"an ai-proxy is running on port {ports}; stop it, then try again", "already_running")
    done = restore_backup(file, folder, database=database, force=force, now=time.time())
    data = {
        "data_dir": str(folder),
        "created": done.manifest.created if done.manifest else None,
        "program": done.manifest.program if done.manifest else None,
        "files": list(done.files),
        "aside": str(done.replaced) if done.replaced else None,
    }
    show(ctx, output, data, lambda: say(_report(done, folder, local=database is not None)))


def _report(done: "Restored", folder: Path, *, local: bool) -> str:
    origin = f", made on {done.manifest.created} by ai-proxy {done.manifest.program}" if done.manifest else ""
    lines = [f"restored to {folder}{origin}:", *(f"  {name}" for name in done.files)]
    if done.replaced:
        lines.append(f"the previous data is in {done.replaced}; remove it when you no longer need it")
    if not local:
        lines.append("the database in PostgreSQL is unchanged; restore it with pg_restore or psql")
    return "\n".join(lines)


def _store_url(config: Path | None) -> str | None:
    import os

    from ai_proxy.config.build import store_url
    from ai_proxy.config.load import configuration

    return store_url(configuration(config, os.environ)[1])
