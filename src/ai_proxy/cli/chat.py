"""`ai-proxy chat`: talk to a model through the running proxy."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_proxy.cli.output import (
    INTERRUPTED,
    Format,
    FormatOption,
    PortOption,
    RunDirOption,
    UserError,
    output_format,
    show,
)

if TYPE_CHECKING:
    from ai_proxy.cli.answer import Answer, Piece
    from ai_proxy.cli.client import Server

INTERRUPTED_BY_USER = "interrupted"
"""Why an answer ended that the user did not want to hear any longer."""

CLEAR_LINE = "\r\x1b[K"


def add_to(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(chat)


def chat(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to say. Default: standard input; at a terminal, a conversation."),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Whom to ask, as 'models list' shows it.", show_default=False),
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions that stand before it all.")] = None,
    output: FormatOption = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Talk to a model; its answer streams to standard output, what it took is told on standard error."""
    from ai_proxy.cli.client import ask
    from ai_proxy.platform.run_folder import MODELS, base_folder, find_instance

    folder = find_instance(base_folder(run_dir), port)
    models = ask(run_dir, port, _list_models)
    talk = Conversation(folder / MODELS, model or the_model(models), system)
    if prompt is None and sys.stdin.isatty():
        _converse(talk)
        return
    said = sys.stdin.read() if prompt is None else prompt
    if not said.strip():
        raise UserError("there is nothing to ask: give a prompt, or pipe one in", "no_prompt")
    if output_format(ctx, output) is Format.JSON:
        answer = talk.say(said, lambda _: None)
        show(ctx, output, {"model": talk.model, **answer.facts()}, lambda: None)
    else:
        answer = _say(talk, said)
    if answer.finish == INTERRUPTED_BY_USER:
        raise typer.Exit(INTERRUPTED)


async def _list_models(server: "Server") -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = (await server.get("/api/v1/models"))["models"]
    return models


def the_model(models: Sequence[Mapping[str, Any]]) -> str:
    """Return the model that is meant when none is named: there must be one service only.

    Raises:
        UserError: There is none, or there are several.

    >>> the_model([{"name": "tiny", "service_id": "tiny"}, {"name": "a.gguf", "service_id": "tiny"}])
    'tiny'
    """
    if not models:
        raise UserError("there are no models; 'ai-proxy config init' writes a configuration", "no_models")
    if len({model["service_id"] for model in models}) > 1:
        names = ", ".join(model["name"] for model in models)
        raise UserError(f"there are several models; choose one with --model: {names}", "several_models")
    return str(models[0]["name"])


@dataclass(slots=True)
class Conversation:
    """What has been said to a model, and by it.

    Attributes:
        door: The socket where the proxy lets its owner ask.
        model: Who is asked.
        system: Instructions; None for none.
        turns: What was said, in OpenAI's form.
    """

    door: Path
    model: str
    system: str | None
    turns: list[dict[str, str]] = field(default_factory=list)

    def say(self, words: str, on: Callable[["Piece"], None]) -> "Answer":
        """Say something and return the answer, whose end may be that the user has heard enough.

        Args:
            words: What is said.
            on: Told each piece of the answer as it comes.

        Raises:
            UserError: It failed; nothing has been said.
        """
        import asyncio

        from ai_proxy.cli.answer import Answer, receive

        answer, turn = Answer(), {"role": "user", "content": words}
        try:
            asyncio.run(receive(self.door, self._question(turn), answer, on))
        except KeyboardInterrupt:
            answer.finish = INTERRUPTED_BY_USER
        self.turns += [turn, {"role": "assistant", "content": answer.text}]
        return answer

    def _question(self, turn: Mapping[str, str]) -> dict[str, object]:
        instructions = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"model": self.model, "messages": [*instructions, *self.turns, turn]}


class Screen:
    """Shows an answer as it comes: its words on standard output, all else on standard error."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._noted = False

    def __call__(self, piece: "Piece") -> None:
        """Show a piece of it."""
        if self._live and piece.note:
            typer.echo(f"{CLEAR_LINE}{piece.note}", err=True, nl=False)
            self._noted = True
        elif self._noted and (piece.text or piece.thought):
            typer.echo(CLEAR_LINE, err=True, nl=False)
            self._noted = False
        if self._live and piece.thought:
            typer.secho(piece.thought, err=True, nl=False, dim=True)
        if piece.text:
            typer.echo(piece.text, nl=False)


def _say(talk: Conversation, words: str) -> "Answer":
    """Say something, show the answer and what it took."""
    answer = talk.say(words, Screen())
    typer.echo()
    typer.echo(answer.summary(), err=True)
    return answer


def _converse(talk: Conversation) -> None:
    """Say what the user types, until there is no more; Ctrl-C ends an answer, not the conversation."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and the arrow keys
    typer.echo(f"talking to {talk.model}: Ctrl-C ends an answer, Ctrl-D the conversation", err=True)
    while (words := _typed()) is not None:
        try:
            if words.strip():
                _say(talk, words)
        except UserError as error:
            typer.echo(f"Error: {error}", err=True)


def _typed() -> str | None:
    """Return the next line that the user types; None when there is none."""
    try:
        return input("> ")
    except EOFError:
        typer.echo(err=True)
        return None
