"""`ai-proxy backup`: one file with everything that lasts, and back again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import FormatOption, RunDirOption, UserError, show

if TYPE_CHECKING:
    from ai_proxy.persistence.backup import Restored

app = typer.Typer(help="Keep everything that lasts in one file, and put it back.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file, which may name a database.", dir_okay=False),
]

NOT_IN_IT = "not in it: the configuration file, models, logs"
ELSEWHERE = "and the database: it is in PostgreSQL, keep it with pg_dump"


@app.command()
def create(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="Where to; else a new file in this folder, named after the moment."),
    ] = None,
    *,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Write keys, policy, audit log, certificates and their secrets into one file; a proxy may be running."""
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
    lines += [NOT_IN_IT if database else f"{NOT_IN_IT}, {ELSEWHERE}"]
    lines += ["it holds secrets: who has it can pass for this proxy; keep it where nobody else can read it"]
    show(ctx, output, data, lambda: typer.echo("\n".join(lines)))


@app.command()
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="What 'backup create' wrote.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also where something is there already; that is kept aside.")
    ] = False,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    output: FormatOption = None,
) -> None:
    """Put a backup in place, once all of it is checked; no proxy may be running meanwhile."""
    import time

    from ai_proxy.persistence.backup import restore_backup
    from ai_proxy.persistence.database import database_file
    from ai_proxy.platform.data_folder import data_folder
    from ai_proxy.platform.run_folder import base_folder, running_instances

    folder = data_folder()
    database = database_file(_store_url(config), folder)
    if database is None and (running := running_instances(base_folder(run_dir))):
        ports = ", ".join(folder.name for folder in running)
        raise UserError(f"an ai-proxy is running on port {ports}; end it, then try again", "already_running")
    done = restore_backup(file, folder, database=database, force=force, now=time.time())
    data = {
        "data_dir": str(folder),
        "created": done.manifest.created if done.manifest else None,
        "program": done.manifest.program if done.manifest else None,
        "files": list(done.files),
        "aside": str(done.aside) if done.aside else None,
    }
    show(ctx, output, data, lambda: typer.echo(_told(done, folder, local=database is not None)))


def _told(done: "Restored", folder: Path, *, local: bool) -> str:
    origin = f", made on {done.manifest.created} by ai-proxy {done.manifest.program}" if done.manifest else ""
    lines = [f"restored to {folder}{origin}:", *(f"  {name}" for name in done.files)]
    if done.aside:
        lines.append(f"what was there before is in {done.aside}; remove it when all is well")
    if not local:
        lines.append("the database in PostgreSQL is as it was: restore it with pg_restore or psql")
    return "\n".join(lines)


def _store_url(config: Path | None) -> str | None:
    import os

    from ai_proxy.config.build import store_url
    from ai_proxy.config.load import find_config, load_config

    path = find_config(config, os.environ, Path.cwd())
    return store_url(load_config(path, os.environ)) if path else None
