"""`ai-proxy security policy`: who may call from where, and how much."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.config import ConfigOption
from ai_proxy.cli.output import FormatOption, UserError, show

if TYPE_CHECKING:
    from ai_proxy.core.store_ports import PolicyRevision
    from ai_proxy.instances.state import ProxyState

app = typer.Typer(help="Who may call from where, and how much.", no_args_is_help=True)
policy = typer.Typer(help="Show and set the policy.", no_args_is_help=True)
app.add_typer(policy, name="policy")


@app.callback()
def group() -> None:
    """Keep the group below its name, also while there is only one."""


@policy.command("show")
def show_policy(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Print the policy in force, as YAML that `set` takes."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.config.show import to_yaml

    async def read(state: "ProxyState") -> dict[str, object]:
        return dict(state.security.policy.document())

    document = with_state(config, read)
    show(ctx, output, document, lambda: typer.echo(to_yaml(document), nl=False))


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
    """Put a policy in force at once; what it leaves out is as by default, and with errors nothing changes."""
    name = "standard input" if file == Path("-") else str(file)
    revision = _put(config, read_policy(_text_of(file), name))
    show(ctx, output, _facts(revision), lambda: typer.echo(_done(revision)))


@policy.command()
def edit(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Open the policy in $EDITOR, and put in force what you save; errors are shown, and you may go on."""
    from ai_proxy.cli.policy_editor import edit_policy

    revision = edit_policy(config, _put)
    if revision is None:
        show(ctx, output, None, lambda: typer.echo("nothing was changed"))
    else:
        show(ctx, output, _facts(revision), lambda: typer.echo(_done(revision)))


@policy.command()
def schema() -> None:
    """Print the JSON Schema of a policy, for editors."""
    from ai_proxy.core.policy_document import POLICY_SCHEMA

    typer.echo(json.dumps(POLICY_SCHEMA, indent=2))


@policy.command()
def history(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The last ones, at most so many.")] = 20,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """List the policies that were set, newest first; with --format json in full."""
    from ai_proxy.cli.state import with_state

    async def read(state: "ProxyState") -> "Sequence[PolicyRevision]":
        return await state.security.policy.history(limit)

    revisions = with_state(config, read)
    lines = "\n".join(map(_line, revisions)) or "no policy was set yet: everybody may call without limits"
    show(ctx, output, [_facts(one) for one in revisions], lambda: typer.echo(lines))


def read_policy(text: str, name: str) -> Mapping[str, object]:
    """Read YAML or JSON that may be a policy.

    Args:
        text: The text.
        name: Of the file, for errors.

    Raises:
        UserError: It is neither, and no mapping; says where.
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
        "\n".join(lines) or f"{name}: a policy is a mapping, such as 'allowlist: [10.0.0.0/8]'",
        "invalid_policy",
    )


def _put(config: Path | None, document: Mapping[str, object]) -> "PolicyRevision":
    from ai_proxy.cli.state import OWNER, audited, with_state

    async def put(state: "ProxyState") -> "PolicyRevision":
        async with audited(state, "policy.set") as deed:
            revision = await state.security.policy.set(document, OWNER)
            deed.detail = f"revision {revision.number}"
        return revision

    return with_state(config, put)


def _text_of(file: Path) -> str:
    try:
        return sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", "not_readable") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8", "not_readable") from None


def _facts(revision: "PolicyRevision") -> dict[str, object]:
    return {"number": revision.number, "at": revision.at, "who": revision.who, "policy": revision.document}


def _done(revision: "PolicyRevision") -> str:
    return f"policy {revision.number} is in force"


def _line(revision: "PolicyRevision") -> str:
    moment = datetime.fromtimestamp(revision.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{revision.number:4}  {moment}  {revision.who}"
