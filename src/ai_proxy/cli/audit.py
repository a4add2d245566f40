"""`ai-proxy audit`: shows management changes and refused requests."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import ConfigOption, Format, FormatOption, UserError, output_format, say, show
from ai_proxy.platform.private_files import private_opener

if TYPE_CHECKING:
    from ai_proxy.core.store_ports import AuditEntry
    from ai_proxy.instances.state import ProxyState

NOTHING = "the audit log is empty"


def add_to(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(audit)


def audit(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new entries.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Maximum age of entries: 1h, 30d.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of entries.")] = 50,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all entries as JSON lines; `-` for standard output.", allow_dash=True
        ),
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Show management changes and refused requests."""
    from ai_proxy.cli.api_keys import seconds
    from ai_proxy.cli.state import with_state

    age = None if since is None else seconds(since, "--since")
    as_json = output_format(ctx, output) is Format.JSON

    def begin(state: "ProxyState") -> float | None:
        return None if age is None else state.clock.wall() - age

    async def read(state: "ProxyState") -> "Sequence[AuditEntry]":
        return await state.store.audit.newest(limit, begin(state))

    async def go_on(state: "ProxyState") -> None:
        entries = await read(state)
        for entry in entries:
            say(as_line(entry) if as_json else as_text(entry))
        last = entries[-1].seq if entries else await state.store.audit.last_seq()
        async for entry in state.security.audit.follow(last):
            say(as_line(entry) if as_json else as_text(entry))

    if export is not None:
        with _opened(export) as file:
            count = with_state(config, lambda state: _write(state.security.audit.export(begin(state)), file))
        say(f"wrote {count} entries", err=True)
    elif follow:
        with_state(config, go_on)
    else:
        found = with_state(config, read)
        text = "\n".join(map(as_text, found)) or NOTHING
        show(ctx, output, [asdict(one) for one in found], lambda: say(text))


def as_line(entry: "AuditEntry") -> str:
    """Return an entry as a line of JSON."""
    return json.dumps(asdict(entry), ensure_ascii=False)


def as_text(entry: "AuditEntry") -> str:
    """Return an entry as a line of text, in the local time zone."""
    moment = datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    count = f" (x{entry.count})" if entry.count > 1 else ""
    detail = f"  {' '.join(entry.detail.split())}" if entry.detail else ""
    return f"{moment}  {entry.who:12}  {entry.where_from:15}  {entry.what}{count}  {entry.result}{detail}"


@contextmanager
def _opened(target: Path) -> Iterator[IO[str]]:
    """Open a new private file, or standard output."""
    if target == Path("-"):
        yield typer.get_text_stream("stdout")
        return
    try:
        with open(target, "x", encoding="utf-8", opener=private_opener) as file:
            yield file
    except FileExistsError:
        raise UserError(f"{target} already exists; name another, or remove it first", "file_exists") from None
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}", "not_writable") from None


async def _write(entries: "AsyncIterator[AuditEntry]", file: IO[str]) -> int:
    count = 0
    async for entry in entries:
        file.write(f"{as_line(entry)}\n")
        count += 1
    return count
