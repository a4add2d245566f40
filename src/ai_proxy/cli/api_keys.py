"""`ai-proxy api-keys`: who may call."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.config import ConfigOption
from ai_proxy.cli.output import FormatOption, UserError, show

if TYPE_CHECKING:
    from ai_proxy.core.key_facts import KeyFacts, MadeKey
    from ai_proxy.core.keys import ApiKey, Scope
    from ai_proxy.core.store_ports import Usage
    from ai_proxy.instances.state import ProxyState

app = typer.Typer(help="Make, list, revoke and replace API keys.", no_args_is_help=True)

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, the beginning of it, or its label.")
]


@app.command()
def create(
    ctx: typer.Context,
    label: Annotated[str, typer.Argument(help="What to call it.")] = "unnamed",
    *,
    admin: Annotated[
        bool, typer.Option("--admin", help="Short for --scope inference --scope admin.")
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it is good for, inference or admin; may be repeated. [default: inference]"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it is for, or a pattern such as 'llama*'; may be repeated. Default: all."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When it is no longer good: 30d, 12h.")
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=0, help="Requests per minute; 0 for no limit.")] = None,
    burst: Annotated[int | None, typer.Option(min=0, help="At once; 0 for a minute's worth.")] = None,
    tpm: Annotated[int | None, typer.Option(min=0, help="Tokens per minute; 0 for no limit.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=0, help="In flight at once; 0 for no limit.")] = None,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Make a key and print it, this once. Limits that are not given are as the policy says."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import MadeKey, described, key_facts
    from ai_proxy.core.keys import Grant, Scope
    from ai_proxy.core.limits import Allowance

    scopes = frozenset(Scope) if admin else _scopes(scope or [Scope.INFERENCE])
    grant = Grant(label, scopes, frozenset(model or ()), Allowance(rpm, burst, tpm, concurrency))
    lasts = None if expires is None else seconds(expires, "--expires")

    async def make(state: "ProxyState") -> "tuple[bool, MadeKey]":
        first, now = not state.security.keys.has_keys, state.clock.wall()
        async with audited(state, "key.create") as deed:
            plain, key = await state.security.keys.create(grant, None if lasts is None else now + lasts)
            deed.what, deed.detail = f"key.create {key.id}", described(grant)
        return first, MadeKey(plain.text, key_facts(key, now))

    first, made = with_state(config, make)
    show(ctx, output, asdict(made), lambda: _tell(made, first=first))


@app.command("list")
def list_keys(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List the keys, with their limits and when they were last used; those that are over, too."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.cli.tables import print_keys
    from ai_proxy.core.key_facts import key_facts

    async def read(state: "ProxyState") -> "list[KeyFacts]":
        now = state.clock.wall()
        return [key_facts(key, now) for key in state.security.keys.all()]

    keys = with_state(config, read)
    show(ctx, output, [asdict(one) for one in keys], lambda: print_keys(keys))


@app.command()
def revoke(
    ctx: typer.Context, key: KeyArgument, *, config: ConfigOption = None, output: FormatOption = None
) -> None:
    """End a key for good; a proxy that runs refuses it within a second."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import key_facts

    async def end(state: "ProxyState") -> "KeyFacts":
        now = state.clock.wall()
        found = find_key(state.security.keys.all(), key, now)
        async with audited(state, f"key.revoke {found.id}"):
            return key_facts(await state.security.keys.revoke(found.id), now)

    ended = with_state(config, end)
    show(ctx, output, asdict(ended), lambda: typer.echo(f"API key {ended.id} ({ended.label}) is revoked"))


@app.command()
def rotate(
    ctx: typer.Context,
    key: KeyArgument,
    *,
    overlap: Annotated[
        str,
        typer.Option(metavar="DURATION", help="For how long the old one is still good; 0 for not at all."),
    ] = "1h",
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Make a key that takes the place of another and may do the same, and print it, this once."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import MadeKey, key_facts

    both_for = seconds(overlap, "--overlap", least=0)

    async def replace(state: "ProxyState") -> "MadeKey":
        now = state.clock.wall()
        found = find_key(state.security.keys.all(), key, now)
        async with audited(state, f"key.rotate {found.id}") as deed:
            plain, fresh = await state.security.keys.rotate(found.id, both_for)
            deed.detail = f"replaced by {fresh.id}"
        return MadeKey(plain.text, key_facts(fresh, now))

    made = with_state(config, replace)
    show(ctx, output, asdict(made), lambda: _tell(made, ends=f"{overlap} from now"))


@app.command()
def usage(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Only this key: id, beginning, or label.")] = "",
    *,
    since: Annotated[str, typer.Option(metavar="DAY", help="First day, in UTC: 2026-01-31.")] = "",
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Show requests and tokens by day, key and model."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.cli.tables import print_usage

    async def read(state: "ProxyState") -> "tuple[Sequence[Usage], dict[str, str]]":
        keys = state.security.keys.all()
        only = find_key(keys, key, state.clock.wall()).id if key else None
        labels = {one.id: one.grant.label for one in keys}
        return await state.store.usage.totals(_day(since), only), labels

    used, labels = with_state(config, read)
    show(ctx, output, [asdict(one) for one in used], lambda: print_usage(used, labels))


def find_key(keys: "Sequence[ApiKey]", word: str, now: float) -> "ApiKey":
    """Return the key that is meant by its id, its label, or the beginning of its id.

    Of several with the label, as after a rotation, those that are over are not meant.

    Args:
        keys: All there are.
        word: What the user wrote.
        now: Seconds since the epoch.

    Raises:
        UserError: None is meant, or several are.
    """
    from ai_proxy.core.errors import UnknownKeyError
    from ai_proxy.core.key_facts import KeyState, key_state
    from ai_proxy.core.keys import redacted

    labelled = [key for key in keys if key.grant.label == word]
    good = [key for key in labelled if key_state(key, now) is KeyState.GOOD]
    begun = [key for key in keys if word and key.id.startswith(word)]
    meant = next(filter(None, ([key for key in begun if key.id == word], good, labelled, begun)), [])
    if not meant:
        raise UnknownKeyError(redacted(word))
    if len(meant) > 1:
        ids = ", ".join(f"{key.id} ({key.grant.label})" for key in meant)
        raise UserError(f"{word!r} may mean {ids}; give more of the id", "ambiguous_key")
    return meant[0]


def seconds(text: str, option: str, least: float = 0.001) -> float:
    """Read a duration.

    Raises:
        UserError: It is none, or too short.

    >>> seconds("30d", "--expires")
    2592000.0
    """
    from ai_proxy.core.durations import parse_duration

    try:
        found = parse_duration(text)
    except ValueError:
        found = -1.0
    if found < least:
        raise UserError(f"{option} must be a duration such as 30d, 12h or 90s, not {text!r}", "usage")
    return found


def _scopes(words: Sequence[str]) -> "frozenset[Scope]":
    from ai_proxy.core.keys import Scope

    if unknown := sorted(set(words) - set(Scope)):
        raise UserError(f"--scope must be {' or '.join(Scope)}, not {unknown[0]!r}", "usage")
    return frozenset(map(Scope, words))


def _day(text: str) -> str:

    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise UserError(f"--since must be a day such as 2026-01-31, not {text!r}", "usage") from None


def _tell(made: "MadeKey", *, first: bool = False, ends: str = "") -> None:
    """Print a new key, and beside it how it is used: standard output has nothing but the key."""
    typer.echo(made.plain)
    lines = [
        f"This is the API key {made.key.id} ({made.key.label}). It is shown only now: keep it safe.",
        "Clients send it as 'Authorization: Bearer aip_...'; for many, OPENAI_API_KEY is where to put it.",
    ]
    if first:
        lines.append("It is the first one: from now on every request to ai-proxy needs a key.")
    if ends:
        lines.append(f"{made.key.rotated_from} is good until {ends}; put the new one in its place by then.")
    typer.echo("\n".join(lines), err=True)
