"""`ai-proxy tls`: trust in the local CA."""

import os
import sys
from typing import Annotated

import typer

from ai_proxy.cli.output import FormatOption, UserError, say, show

app = typer.Typer(help="Trust the local CA of tls.mode dev-selfsigned.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `trust` a command of the group although it is the only one."""


@app.command()
def trust(
    ctx: typer.Context,
    *,
    install: Annotated[bool, typer.Option("--install", help="Make this system trust the local CA.")] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Remove the local CA from this system.")
    ] = False,
    output: FormatOption = None,
) -> None:
    """Show how to make clients trust the local CA, or install it on this system."""
    from ai_proxy.platform.data_folder import data_folder
    from ai_proxy.tls.authority import authority_files
    from ai_proxy.tls.trust import change_trust, instructions, local_authority, trust_store

    if install and uninstall:
        raise UserError("--install and --uninstall contradict each other; give one of them", "usage")
    files = authority_files(data_folder() / "tls")
    authority = files.certificate.absolute()
    fingerprint = local_authority(files)
    store = trust_store(authority, fingerprint, sys.platform)
    data = {"certificate": str(authority), "sha256": fingerprint, "system": store.name if store else None}
    if not install and not uninstall:
        show(ctx, output, data, lambda: say(instructions(authority, fingerprint, store)))
        return
    if store is None:
        raise UserError("cannot install a CA on this system; install it by hand", "unknown_system")
    change_trust(store.install if install else store.uninstall, privileged=os.geteuid() == 0)
    done = "trusts" if install else "no longer trusts"
    show(ctx, output, data, lambda: say(f"{store.name}: this system {done} the local CA"))
