import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view
from tests.unit.cli.conftest import CommandLine, running

from ai_proxy.api.middleware import owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.cli.answer import Answer
from ai_proxy.dialects.completion import Facts
from ai_proxy.dialects.sse import Parser
from ai_proxy.platform.run_folder import MODELS, create_instance_folder


def word(text: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


def finish(usage: dict[str, int] | None = None) -> list[bytes]:
    ended: dict[str, object] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    told: dict[str, object] = {"choices": [], "usage": usage}
    return [*(b"data: %b\n\n" % json.dumps(one).encode() for one in (ended, told)), b"data: [DONE]\n\n"]


class Proxy:
    """The public side of an instance, that answers as a test wants.

    Attributes:
        events: What the next answers stream.
        refusal: Status and body of what they are instead; None for none.
        hold: Whether they go on for ever after that.
        asked: Bodies of the requests that came.
        left: Set when a client has gone before the end.
    """

    def __init__(self) -> None:
        self.events = [
            word("the quick"),
            word(" brown fox"),
            *finish({"prompt_tokens": 5, "completion_tokens": 4}),
        ]
        self.refusal: tuple[int, Any] | None = None
        self.hold = False
        self.asked: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in self.events:
            await response.write(event)
        if self.hold:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        return response


@pytest.fixture
async def proxy(base: Path) -> AsyncIterator[Proxy]:
    """A running instance with one service."""
    async with serving(base, FakePlane(view("llama3", models=("llama3", "gpt")))) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def serving(base: Path, plane: FakePlane) -> AsyncIterator[Proxy]:
    proxy, public = Proxy(), web.Application()
    public.router.add_post("/v1/chat/completions", proxy.answer)
    async with AsyncExitStack() as stack:
        folder = create_instance_folder(base, 11000)
        runner = web.AppRunner(public, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, str(folder / MODELS)).start()
        app = create_app(plane, lambda: (b"", "text/plain"), "1.2.3")
        await stack.enter_async_context(serve_unix(folder / "control.sock", app, owner_principal))
        yield proxy


async def test_the_answer_is_printed_and_what_it_took_told_on_standard_error(
    command: CommandLine, proxy: Proxy
) -> None:
    ran = await command("chat", "hello")

    assert (ran.code, ran.out) == (0, "the quick brown fox\n")
    assert ran.err.startswith("4 tokens in ")
    assert "first after" in ran.err
    assert "tokens/s" in ran.err


async def test_the_question_is_a_stream_to_the_only_model(command: CommandLine, proxy: Proxy) -> None:
    await command("chat", "hello", "--system", "be brief")

    assert proxy.asked == [
        {
            "model": "llama3",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_the_model_can_be_chosen(command: CommandLine, proxy: Proxy) -> None:
    await command("chat", "hello", "--model", "gpt")

    assert proxy.asked[0]["model"] == "gpt"


async def test_several_services_make_a_choice_necessary(command: CommandLine, base: Path) -> None:
    async with serving(base, FakePlane(view("llama3"), view("coder"))):
        ran = await command("chat", "hello")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: there are several models; choose one with --model: llama3, coder\n"


async def test_scripts_get_the_whole_answer_as_one_object(command: CommandLine, proxy: Proxy) -> None:
    ran = await command("chat", "hello", "--format", "json")

    assert (
        ran.data.items()
        >= {
            "model": "llama3",
            "content": "the quick brown fox",
            "finish_reason": "stop",
            "prompt_tokens": 5,
            "completion_tokens": 4,
        }.items()
    )
    assert 0 < ran.data["time_to_first_token"] <= ran.data["seconds"]
    assert ran.err == ""


async def test_tokens_are_counted_where_they_are_not_told(command: CommandLine, proxy: Proxy) -> None:
    proxy.events = [word("one"), word(" two"), word(" three"), *finish()]

    ran = await command("chat", "hello", "--format", "json")

    assert (ran.data["completion_tokens"], ran.data["prompt_tokens"]) == (3, None)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            404,
            {"error": {"message": "there is no model 'x'", "code": "model_not_found"}},
            "model_not_found",
            "there is no model 'x'",
        ),
        (
            500,
            {"error": {"message": "no memory", "type": "server_error", "code": None}},
            "server_error",
            "no memory",
        ),
        (400, {"error": "llama runner is gone"}, "engine_error", "llama runner is gone"),
        (502, ["what?"], "bad_answer", "the server answered 502 Bad Gateway"),
    ],
)
async def test_a_refusal_is_told_in_its_own_words(
    command: CommandLine, proxy: Proxy, status: int, body: object, code: str, message: str
) -> None:
    proxy.refusal = (status, body)

    ran = await command("chat", "hello", "--format", "json")

    assert (ran.code, ran.out) == (1, "")
    assert ran.error == {"code": code, "message": message}


async def test_an_error_within_the_stream_is_told(command: CommandLine, proxy: Proxy) -> None:
    error = {"error": {"message": "the backend died", "code": "upstream_closed"}}
    proxy.events = [word("the quick"), b"data: %b\n\n" % json.dumps(error).encode()]

    ran = await command("chat", "hello")

    assert (ran.code, ran.out) == (1, "the quick")
    assert ran.err == "Error: the backend died\n"


async def test_a_stream_without_its_end_is_no_answer(command: CommandLine, proxy: Proxy) -> None:
    proxy.events = [word("the quick")]

    ran = await command("chat", "hello")

    assert ran.code == 1
    assert ran.err == "Error: the answer broke off before its end; try again\n"


async def test_without_a_running_server_the_user_is_told_how_to_start_one(command: CommandLine) -> None:
    ran = await command("chat", "hello")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: no ai-proxy is running; start one with 'ai-proxy serve'\n"


async def test_a_prompt_may_be_piped_in(base: Path, proxy: Proxy) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ai_proxy.cli.main", "chat", "--run-dir", str(base)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    out, _ = await process.communicate(b"from a file\n")

    assert (process.returncode, out) == (0, b"the quick brown fox\n")
    assert proxy.asked[0]["messages"] == [{"role": "user", "content": "from a file\n"}]


@pytest.mark.usefixtures("interruptible")
async def test_ctrl_c_ends_the_answer_without_a_traceback(base: Path, proxy: Proxy) -> None:
    proxy.events, proxy.hold = [word("the quick\n")], True

    async with running("chat", "hello", "--run-dir", str(base)) as chat:
        assert await chat.stdout.readline() == b"the quick\n"
        chat.process.send_signal(signal.SIGINT)

        assert (await chat.stderr.read()).startswith(b"1 token in ")
        assert await chat.process.wait() == 130
    await asyncio.wait_for(proxy.left.wait(), 60)


async def test_at_a_terminal_it_is_a_conversation_that_remembers(base: Path, proxy: Proxy) -> None:
    async with terminal("chat", "--run-dir", str(base)) as (process, screen, keys):
        for line in (b"hello\n", b"and then?\n", b"\x04"):
            await screen.readuntil(b"> ")
            os.write(keys, line)

        assert await process.wait() == 0

    assert proxy.asked[1]["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "the quick brown fox"},
        {"role": "user", "content": "and then?"},
    ]


@pytest.mark.threat("a backend", "control of an operator's terminal")
async def test_an_answer_cannot_control_the_terminal(base: Path, proxy: Proxy) -> None:
    proxy.events = [word("\x1b]0;a title\x07 \x1b[2J \x9b2J"), *finish()]

    async with terminal("chat", "hello", "--run-dir", str(base)) as (process, screen, _):
        shown = await screen.readuntil(b"\n")
        assert await process.wait() == 0

    assert shown == rb"\x1b]0;a title\x07 \x1b[2J \x9b2J" + b"\r\n"


@pytest.mark.usefixtures("interruptible")
async def test_ctrl_c_ends_an_answer_but_not_the_conversation(base: Path, proxy: Proxy) -> None:
    proxy.events, proxy.hold = [word("the quick")], True

    async with terminal("chat", "--run-dir", str(base)) as (process, screen, keys):
        await screen.readuntil(b"> ")
        os.write(keys, b"hello\n")
        await screen.readuntil(b"the quick")
        process.send_signal(signal.SIGINT)
        await screen.readuntil(b"> ")
        os.write(keys, b"\x04")

        assert await process.wait() == 0


@contextlib.asynccontextmanager
async def terminal(
    *words: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader, int]]:
    """Run a command at a terminal; yield its process, what it shows, and where to type."""
    keys, inside = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ai_proxy.cli.main", *words), stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    screen = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(keys, "rb", buffering=0)
    )
    try:
        yield process, screen, keys
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        transport.close()
        await asyncio.sleep(0)  # the transport closes its file in the next turn of the loop


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=20))
def test_an_answer_is_all_its_pieces_in_order(words: list[str]) -> None:
    answer = Answer()

    for at, text in enumerate(words):
        for event in Parser().feed(word(text)):
            answer.add(event, float(at))

    assert answer.text == "".join(words)
    assert answer.tokens == sum(map(bool, words))


def test_the_speed_of_an_answer_counts_from_its_first_token() -> None:
    assert Answer(facts=Facts(pieces=11), first=1.0, seconds=1.5).tokens_per_second == 20.0
    assert Answer(facts=Facts(pieces=1), first=1.0, seconds=1.0).tokens_per_second is None
