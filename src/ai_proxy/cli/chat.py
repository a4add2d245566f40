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
    say,
    show,
)
from ai_proxy.core.terminal import visible

if TYPE_CHECKING:
    from ai_proxy.cli.answer import Answer, Piece
    from ai_proxy.cli.client import Server

CLEAR_LINE = "\r\x1b[K"


def add_to(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(chat)


def chat(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt. Default: standard input; at a terminal, a conversation."),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="The model, as 'models list' names it. Default: the only one.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    output: FormatOption = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Chat with a model. The answer streams to standard output, tokens and times go to standard error."""
    from ai_proxy.cli.client import ask
    from ai_proxy.platform.run_folder import MODELS, base_folder, find_instance

    folder = find_instance(base_folder(run_dir), port)
    models = ask(run_dir, port, _list_models)
    talk = Conversation(folder / MODELS, model or the_model(models), system)
    if prompt is None and sys.stdin.isatty():
        _converse(talk)
        return
    prompt = sys.stdin.read() if prompt is None else prompt
    if not prompt.strip():
        raise UserError("the prompt is empty; give one as an argument or on standard input", "no_prompt")
    if output_format(ctx, output) is Format.JSON:
        answer = talk.say(prompt, lambda _: None)
        show(ctx, output, {"model": talk.model, **answer.as_data()}, lambda: None)
    else:
        answer = _say(talk, prompt)
    if answer.interrupted:
        raise typer.Exit(INTERRUPTED)


async def _list_models(server: "Server") -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = (await server.get("/api/v1/models"))["models"]
    return models


def the_model(models: Sequence[Mapping[str, Any]]) -> str:
    """Return the model to use when the user names none: the model of the only service.

    Raises:
        UserError: There are no services, or several.

    >>> the_model([{"name": "tiny", "service_id": "tiny"}, {"name": "a.gguf", "service_id": "tiny"}])
    'tiny'
    """
    if not models:
        raise UserError(
            "there are no models; declare a service in the configuration ('ai-proxy config init' writes one)",
            "no_models",
        )
    if len({model["service_id"] for model in models}) > 1:
        names = ", ".join(model["name"] for model in models)
        raise UserError(f"there are several models; choose one with --model: {names}", "several_models")
    return str(models[0]["name"])


@dataclass(slots=True)
class Conversation:
    """A conversation with a model.

    Attributes:
        socket: The socket on which the proxy serves its owner.
        model: Name of the model.
        system: System prompt; None for none.
        turns: The messages so far, in OpenAI's form.
    """

    socket: Path
    model: str
    system: str | None
    turns: list[dict[str, str]] = field(default_factory=list)

    def say(self, prompt: str, on: Callable[["Piece"], None]) -> "Answer":
        """Send a prompt and return the answer, or the part that came before the user pressed Ctrl-C.

        Args:
            prompt: The user's message.
            on: Called with each piece of the answer.

        Raises:
            UserError: The request failed; the conversation is unchanged.
        """
        import asyncio

        from ai_proxy.cli.answer import CHAT_PATH, Answer, receive
        from ai_proxy.cli.client import connect

        answer, turn = Answer(), {"role": "user", "content": prompt}
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        question = {"model": self.model, "messages": [*system, *self.turns, turn]}

        async def send() -> None:
            async with connect(self.socket) as session:
                await receive(session, CHAT_PATH, question, answer, on)

        try:
            asyncio.run(send())
        except KeyboardInterrupt:
            answer.interrupted = True
        self.turns += [turn, {"role": "assistant", "content": answer.text}]
        return answer


class Screen:
    """Shows an answer as it arrives: its text on standard output, everything else on standard error."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._noted = False

    def __call__(self, piece: "Piece") -> None:
        """Show a piece of the answer."""
        if self._live and piece.note:
            typer.echo(f"{CLEAR_LINE}{visible(piece.note)}", err=True, nl=False)
            self._noted = True
        elif self._noted and (piece.text or piece.thinking):
            typer.echo(CLEAR_LINE, err=True, nl=False)
            self._noted = False
        if self._live and piece.thinking:
            typer.secho(visible(piece.thinking), err=True, nl=False, dim=True)
        if piece.text:
            say(piece.text, nl=False)


def _say(talk: Conversation, prompt: str) -> "Answer":
    """Send a prompt; show the answer, tokens and times."""
    answer = talk.say(prompt, Screen())
    say()
    say(answer.summary(), err=True)
    return answer


def _converse(talk: Conversation) -> None:
    """Send what the user types until end of file; Ctrl-C ends an answer, not the conversation."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and line editing
    say(f"chatting with {talk.model}; Ctrl-C stops an answer, Ctrl-D ends the conversation", err=True)
    while (line := _typed()) is not None:
        try:
            if line.strip():
                _say(talk, line)
        except UserError as error:
            say(f"Error: {error}", err=True)


def _typed() -> str | None:
    """Return the next line that the user types; None at end of file."""
    try:
        return input("> ")
    except EOFError:
        say(err=True)
        return None
