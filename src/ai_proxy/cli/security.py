"""`ai-proxy security policy`: the allowlist and the rate limits of clients."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, UserError, explain, say, show

if TYPE_CHECKING:
    from ai_proxy.core.store_ports import PolicyRevision
    from ai_proxy.instances.state import ProxyState

app = typer.Typer(
    help="Manage the policy: allowlist, CORS and limits; recover from a lost store.", no_args_is_help=True
)
policy = typer.Typer(help="Show and set the policy.", no_args_is_help=True)
app.add_typer(policy, name="policy")

HINT = "# Save and close to apply this policy; 'ai-proxy security policy schema' describes it.\n"


@app.command("accept-loss")
def accept_the_loss(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Start without the API keys and the policy of a lost store; a running proxy serves again."""
    import asyncio

    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.config.load import configuration
    from ai_proxy.instances.state import accept_loss

    asyncio.run(accept_loss(configuration(config, os.environ)[1]))

    async def note(state: "ProxyState") -> None:
        async with audited(state, "security.accept-loss"):
            pass

    with_state(config, note)
    show(ctx, output, None, lambda: say("the store is empty; create a key with 'ai-proxy api-keys create'"))


@policy.command("show")
def show_policy(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Print the current policy, as YAML that `set` accepts."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.config.show import to_yaml

    async def read(state: "ProxyState") -> dict[str, object]:
        return dict(state.security.policy.document())

    document = with_state(config, read)
    show(ctx, output, document, lambda: say(to_yaml(document), nl=False))


@policy.command("set")
def set_policy(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON; `-` for standard input.", allow_dash=True, dir_okay=False)
    ],
    *,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Apply a policy at once. Omitted keys get their defaults; a policy with errors changes nothing."""
    name = "standard input" if file == Path("-") else str(file)
    try:
        text = sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", "not_readable") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text", "not_readable") from None
    revision = _put(config, read_policy(text, name))
    show(ctx, output, _facts(revision), lambda: say(f"policy {revision.number} is in force"))


@policy.command()
def edit(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Open the policy in $EDITOR and apply what you save. Errors are shown, and you can edit again."""
    revision = _edit(config)
    if revision is None:
        show(ctx, output, None, lambda: say("nothing was changed"))
    else:
        show(ctx, output, _facts(revision), lambda: say(f"policy {revision.number} is in force"))


@policy.command()
def schema() -> None:
    """Print the JSON Schema of a policy, for editors."""
    from ai_proxy.core.policy_document import POLICY_SCHEMA

    say(json.dumps(POLICY_SCHEMA, indent=2))


@policy.command()
def history(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of policies.")] = 20,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """List the policies that were set, newest first; --format json shows them in full."""
    from ai_proxy.cli.state import with_state

    async def read(state: "ProxyState") -> "Sequence[PolicyRevision]":
        return await state.security.policy.history(limit)

    def line(revision: "PolicyRevision") -> str:
        moment = datetime.fromtimestamp(revision.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"{revision.number:4}  {moment}  {revision.who}"

    revisions = with_state(config, read)
    lines = "\n".join(map(line, revisions)) or "no policy is set: every client has access without limits"
    show(ctx, output, [_facts(one) for one in revisions], lambda: say(lines))


def read_policy(text: str, name: str) -> Mapping[str, object]:
    """Parse YAML or JSON as a mapping.

    Args:
        text: The text.
        name: Name of its file, for errors.

    Raises:
        UserError: It is not a mapping; the message names the line.
    """
    from ai_proxy.config.document import SyntaxFaultError, parse

    try:
        document = parse(text)
    except SyntaxFaultError as error:
        faults = [error.fault]
    else:
        if isinstance(document.data, dict) and not document.faults:
            return document.data
        faults = document.faults
    lines = [f"{name}:{at.line}: {one.message}; {one.hint}" for one in faults if (at := one.position)]
    raise UserError(
        "\n".join(lines) or f"{name}: not a policy; write a mapping, such as 'allowlist: [10.0.0.0/8]'",
        "invalid_policy",
    )


def _facts(revision: "PolicyRevision") -> dict[str, object]:
    return {"number": revision.number, "at": revision.at, "who": revision.who, "policy": revision.document}


def _put(config: Path | None, document: Mapping[str, object]) -> "PolicyRevision":
    from ai_proxy.cli.state import OWNER, audited, with_state

    async def put(state: "ProxyState") -> "PolicyRevision":
        async with audited(state, "policy.set") as event:
            revision = await state.security.policy.set(document, OWNER)
            event.detail = f"revision {revision.number}"
        return revision

    return with_state(config, put)


async def _current(state: "ProxyState") -> tuple[Path, int, dict[str, object]]:
    return state.folder, state.security.policy.number, dict(state.security.policy.document())


def _edit(config: Path | None) -> "PolicyRevision | None":
    """Edit the policy in a private file that survives every failure; None when nothing was changed.

    Raises:
        UserError: The user gave up, or another policy was set meanwhile; the message names the file.
    """
    from ai_proxy.cli.state import with_state
    from ai_proxy.config.show import to_yaml

    folder, number, document = with_state(config, _current)
    before = HINT + to_yaml(document)
    descriptor, name = tempfile.mkstemp(prefix="policy-", suffix=".yaml", dir=folder, text=True)
    with os.fdopen(descriptor, "w", encoding="utf-8") as text:
        text.write(before)
    file = Path(name)
    try:
        revision = _edit_until_valid(config, file, before, number)
    except KeyboardInterrupt:
        say(f"your text is in {file}", err=True)
        raise
    except Exception as error:
        _, code, message = explain(error)
        hint = f"your text is in {file}; apply it with 'ai-proxy security policy set {file}'"
        raise UserError(f"{message}\n{hint}", code) from error
    file.unlink()
    return revision


def _put_if_unchanged(config: Path | None, document: Mapping[str, object], number: int) -> "PolicyRevision":
    from ai_proxy.cli.state import with_state

    if with_state(config, _current)[1] != number:
        raise UserError(
            "another policy was set meanwhile; see 'ai-proxy security policy history'", "conflict"
        )
    return _put(config, document)


def _edit_until_valid(config: Path | None, file: Path, before: str, number: int) -> "PolicyRevision | None":
    from ai_proxy.core.errors import InvalidPolicyError

    while True:
        _open_editor(file)
        text = file.read_text(encoding="utf-8", errors="replace")
        if text == before:
            return None
        try:
            return _put_if_unchanged(config, read_policy(text, file.name), number)
        except (UserError, InvalidPolicyError) as error:
            if isinstance(error, UserError) and error.code != InvalidPolicyError.code:
                raise
            say(f"Error: {explain(error)[2]}\nEdit it again? [Y/n] ", err=True, nl=False)
            answer = sys.stdin.readline()  # end of file means no
            if not answer or answer.strip().lower() not in ("", "y", "yes"):
                raise


def _open_editor(file: Path) -> None:
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise UserError(
            f"cannot run the editor {command[0]!r}: {error.strerror}; set EDITOR to another", "no_editor"
        ) from None
    if code:
        raise UserError(f"the editor {command[0]!r} failed with exit code {code}", "editor_failed")
