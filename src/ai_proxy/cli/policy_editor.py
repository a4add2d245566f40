"""`security policy edit`: the policy in an editor, until it is right; nothing that was written is lost."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ai_proxy.cli.output import UserError, explain
from ai_proxy.cli.state import with_state
from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.store_ports import PolicyRevision

if TYPE_CHECKING:
    from ai_proxy.instances.state import ProxyState

type Put = Callable[[Path | None, Mapping[str, object]], PolicyRevision]

HINT = "# Save and close to put this policy in force; 'ai-proxy security policy schema' explains it.\n"


def edit_policy(config: Path | None, put: Put) -> PolicyRevision | None:
    """Have the policy edited, and put in force what comes of it; None when nothing was changed.

    Args:
        config: The configuration file chosen on the command line.
        put: Puts a policy in force.

    Raises:
        UserError: It was given up, or somebody else has set another meanwhile; says where the text is.
    """
    from ai_proxy.config.show import to_yaml

    folder, number, document = with_state(config, _current)
    before = HINT + to_yaml(document)
    file = _keep(folder, before)
    try:
        revision = _until_right(config, file, before, number, put)
    except KeyboardInterrupt:
        typer.echo(f"your text is in {file}", err=True)
        raise
    except Exception as error:
        message = (
            f"{explain(error)[2]}\nyour text is in {file}; 'ai-proxy security policy set {file}' takes it"
        )
        raise UserError(message, explain(error)[1]) from error
    file.unlink()
    return revision


def _until_right(
    config: Path | None, file: Path, before: str, number: int, put: Put
) -> PolicyRevision | None:
    from ai_proxy.cli.security import read_policy

    while True:
        _open_editor(file)
        text = file.read_text(encoding="utf-8", errors="replace")
        if text == before:
            return None
        try:
            document = read_policy(text, file.name)
            _check_unchanged(config, number)
            return put(config, document)
        except (UserError, InvalidPolicyError) as error:
            if isinstance(error, UserError) and error.code != InvalidPolicyError.code:
                raise
            typer.echo(f"Error: {explain(error)[2]}", err=True)
            if not _again():
                raise


def _again() -> bool:
    """Ask whether to go on; nobody there to answer means no."""
    typer.echo("Edit it again? [Y/n] ", err=True, nl=False)
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


def _check_unchanged(config: Path | None, number: int) -> None:
    """Refuse to undo what somebody else has set while the editor was open."""
    _, now, _ = with_state(config, _current)
    if now != number:
        raise UserError(
            "somebody else has set another policy meanwhile; see 'security policy history'", "conflict"
        )


async def _current(state: "ProxyState") -> tuple[Path, int, dict[str, object]]:
    return state.folder, state.security.policy.number, dict(state.security.policy.document())


def _keep(folder: Path, text: str) -> Path:
    """Write a text to a new file that only its owner can read, where it outlives a restart."""
    descriptor, name = tempfile.mkstemp(prefix="policy-", suffix=".yaml", dir=folder, text=True)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)


def _open_editor(file: Path) -> None:
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise UserError(
            f"the editor {command[0]!r} cannot be run: {error.strerror}; set EDITOR to another", "no_editor"
        ) from None
    if code:
        raise UserError(f"the editor {command[0]!r} ended with exit code {code}", "editor_failed")
