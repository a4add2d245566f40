"""`ai-proxy api-keys`: manages API keys."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, UserError, say, show

if TYPE_CHECKING:
    from ai_proxy.core.key_facts import KeyFacts, MadeKey
    from ai_proxy.core.keys import ApiKey, Scope
    from ai_proxy.core.store_ports import Usage
    from ai_proxy.instances.state import ProxyState

app = typer.Typer(help="Create, list, revoke and rotate API keys.", no_args_is_help=True)

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id, a prefix of it, or its label.")
]


@app.command()
def create(
    ctx: typer.Context,
    label: Annotated[str, typer.Argument(help="Label of the key.")] = "unnamed",
    *,
    admin: Annotated[
        bool, typer.Option("--admin", help="Short for --scope inference --scope admin.")
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Scope, inference or admin; may be repeated. [default: inference]"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model, or pattern such as 'llama*', it may use; may be repeated. Default: all."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Lifetime: 30d, 12h. Default: forever.")
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=0, help="Requests per minute; 0 for no limit.")] = None,
    burst: Annotated[
        int | None, typer.Option(min=0, help="Requests at once; 0 for a minute's worth.")
    ] = None,
    tpm: Annotated[int | None, typer.Option(min=0, help="Tokens per minute; 0 for no limit.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=0, help="Concurrent requests; 0 for no limit.")
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Create a key and print it, only this once. The policy sets the limits that you omit."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import MadeKey, described, key_facts
    from ai_proxy.core.keys import Grant, Scope
    from ai_proxy.core.limits import Allowance

    scopes = frozenset(Scope) if admin else _scopes(scope or [Scope.INFERENCE])
    grant = Grant(label, scopes, frozenset(model or ()), Allowance(rpm, burst, tpm, concurrency))
    lasts = None if expires is None else seconds(expires, "--expires")

    async def make(state: "ProxyState") -> "tuple[bool, MadeKey]":
        first, now = not state.security.keys.has_keys, state.clock.wall()
        async with audited(state, "key.create") as event:
            plain, key = await state.security.keys.create(grant, None if lasts is None else now + lasts)
            event.what, event.detail = f"key.create {key.id}", described(grant)
        return first, MadeKey(plain.text, key_facts(key, now))

    first, made = with_state(config, make)
    show(ctx, output, asdict(made), lambda: _print_key(made, first=first))


@app.command("list")
def list_keys(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List all keys with their limits and last use, including expired and revoked ones."""
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
    """Revoke a key for good; a running proxy refuses it within a second."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import key_facts

    async def end(state: "ProxyState") -> "KeyFacts":
        now = state.clock.wall()
        found = find_key(state.security.keys.all(), key, now)
        async with audited(state, f"key.revoke {found.id}"):
            return key_facts(await state.security.keys.revoke(found.id), now)

    ended = with_state(config, end)
    show(ctx, output, asdict(ended), lambda: say(f"API key {ended.id} ({ended.label}) is revoked"))


@app.command()
def rotate(
    ctx: typer.Context,
    key: KeyArgument,
    *,
    overlap: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long the old key stays valid; 0 revokes it at once."),
    ] = "1h",
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Create a key that replaces another with the same rights, and print it, only this once."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.core.key_facts import MadeKey, key_facts

    both_for = seconds(overlap, "--overlap", least=0)

    async def replace(state: "ProxyState") -> "MadeKey":
        now = state.clock.wall()
        found = find_key(state.security.keys.all(), key, now)
        async with audited(state, f"key.rotate {found.id}") as event:
            plain, fresh = await state.security.keys.rotate(found.id, both_for)
            event.detail = f"replaced by {fresh.id}"
        return MadeKey(plain.text, key_facts(fresh, now))

    made = with_state(config, replace)
    show(ctx, output, asdict(made), lambda: _print_key(made, ends=f"{overlap} from now"))


@app.command()
def usage(
    ctx: typer.Context,
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="Only this key: id, prefix of the id, or label.")
    ] = "",
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
    """Return the key with an id, a label, or a prefix of an id.

    Of several keys with the label, as after a rotation, expired and revoked ones do not match.

    Args:
        keys: All keys.
        word: Id, label or prefix.
        now: Seconds since the epoch.

    Raises:
        UserError: No key matches, or several do.
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
        raise UserError(f"{word!r} matches {ids}; give more of the id", "ambiguous_key")
    return meant[0]


def seconds(text: str, option: str, least: float = 0.001) -> float:
    """Read a duration.

    Raises:
        UserError: It is not a duration, or too short.

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


def _print_key(made: "MadeKey", *, first: bool = False, ends: str = "") -> None:
    """Print a new key to standard output, and its use to standard error."""
    say(made.plain)
    lines = [
        f"This is the API key {made.key.id} ({made.key.label}). It is shown only once: keep it safe.",
        "Clients send it as 'Authorization: Bearer aip_...'; many read it from OPENAI_API_KEY.",
    ]
    if first:
        lines.append("It is the first key: from now on every request to ai-proxy needs one.")
    if ends:
        lines.append(f"{made.key.rotated_from} stays valid until {ends}; replace it by then.")
    say("\n".join(lines), err=True)
