"""The genuine vLLM, which takes a minute to start: `scripts/test_vllm` installs it and runs these."""

import http.client
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from tests.e2e.conftest import Answer, Proxy, eventually
from tests.slow.recital import CONTEXT, WORDS, prompt_tokens, write_model

from ai_proxy.data import DEMO_SENTENCE

START = 300.0
"""Longest time a start may take, in seconds: it is half a minute on two idle cores, minutes on busy ones."""

SERVICE, MODEL = "reciter", "recital"
"""What the proxy calls it, and what vLLM calls its model."""

TOKENS = len(WORDS) + 1
"""Of an answer: the last one ends it."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3 * START),
    pytest.mark.skipif(not shutil.which("vllm"), reason="there is no vLLM: run scripts/test_vllm"),
]


def vllm(model: Path) -> dict[str, Any]:
    """Return a service with the tiny model and next to no memory."""
    return {
        "type": "vllm",
        "args": [
            "--model",
            str(model),
            "--served-model-name",
            MODEL,
            "--enforce-eager",
            "--max-num-seqs",
            "4",
        ],
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        "start_timeout": f"{START:.0f}s",
    }


@dataclass(frozen=True, slots=True)
class House:
    """A proxy with vLLM behind it."""

    proxy: Proxy

    @property
    def view(self) -> Any:
        return self.proxy.service(SERVICE)

    @property
    def pid(self) -> int:
        """Of vLLM's API server."""
        return int(self.view["ref"])

    def ask(self, path: str, body: Any = None) -> Answer:
        return self.proxy.ask(path, body, wait=START)

    def chat(self, **more: Any) -> Answer:
        return self.ask("/v1/chat/completions", chat(**more))

    def make_ready(self) -> None:
        assert self.ask(f"/api/v1/service/{SERVICE}/start?wait={START}", {}).status in {200, 202}
        assert self.view["state"] == "ready"

    def is_healthy(self) -> bool:
        """Ask vLLM itself."""
        place = urlsplit(self.view["upstreams"][0]).netloc
        with closing(http.client.HTTPConnection(place, timeout=30)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def last_request(self) -> Any:
        """Return the facts of the request that ended last."""
        return self.ask(f"/api/v1/requests?service={SERVICE}&limit=1").json["recent"][0]


@dataclass(frozen=True, slots=True)
class FirstStream:
    """What the client saw whose streamed chat started vLLM.

    Attributes:
        status: Of the response.
        comments: In the order they came.
        events: Likewise.
        meanwhile: At each comment, the state the proxy told, and whether vLLM answered that it is healthy.
        other: What a second client got, who asked for no stream while it loaded.
    """

    status: int
    comments: list[str]
    events: list[str]
    meanwhile: list[tuple[str, bool]]
    other: Answer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("vllm")
    write_model(folder)
    with tempfile.TemporaryDirectory(prefix="aip-") as run_dir:
        proxy = Proxy(folder, Path(run_dir))
        proxy.configure(**{SERVICE: vllm(folder)})
        try:
            proxy.serve()
            yield House(proxy)
            assert proxy.end() == 0
        finally:
            left = {pid for backend in proxy.backends() for pid in family(os.getsid(backend))}
            proxy.clean_up()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def first_stream(house: House) -> FirstStream:
    with ThreadPoolExecutor(1) as threads, open_stream(house, chat(stream=True)) as connection:
        response = connection.getresponse()
        other: Future[Answer] = threads.submit(house.chat)
        comments, events, meanwhile = [], [], []
        for line in map(bytes.decode, response):
            if line.startswith(":"):
                comments.append(line.strip())
                meanwhile.append((house.view["state"], house.is_healthy()))
            elif line.startswith("data:"):
                events.append(line.removeprefix("data:").strip())
        return FirstStream(response.status, comments, events, meanwhile, other.result(START))


@pytest.fixture
def ready(house: House, first_stream: FirstStream) -> House:
    """The proxy with vLLM ready, whatever an earlier test has done to it."""
    house.make_ready()
    return house


def chat(**more: Any) -> dict[str, Any]:
    return {"model": SERVICE, "messages": [{"role": "user", "content": "hello"}], "temperature": 0, **more}


def open_stream(house: House, body: Any) -> closing[http.client.HTTPConnection]:
    """Send a chat whose answer is still to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", house.proxy.port, timeout=START)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return closing(connection)


def said(events: list[str]) -> str:
    """Return the text of a streamed chat that came to its end."""
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def family(pid: int) -> dict[int, str]:
    """Return what lives of all that a process has started, by pid: its session, which vLLM does not leave."""
    session = [process for process in psutil.process_iter() if _session(process.pid) == pid]
    return {process.pid: title for process in session if (title := _title(process))}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _title(process: psutil.Process) -> str:
    """Return its command line, which vLLM's processes change to say what they do; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def find(processes: dict[int, str], title: str) -> int:
    """Return the pid of the one process that calls itself so."""
    (found,) = [pid for pid in processes if title in processes[pid]]
    return found


def test_the_client_that_starts_vllm_hears_of_the_load_and_is_answered(first_stream: FirstStream) -> None:
    assert first_stream.status == 200
    assert len(first_stream.comments) > 2
    assert all(comment.startswith(f": loading {SERVICE} ") for comment in first_stream.comments)
    assert said(first_stream.events) == DEMO_SENTENCE


def test_a_client_that_comes_while_it_loads_waits_for_the_same_start(
    house: House, first_stream: FirstStream
) -> None:
    assert first_stream.other.status == 200
    assert first_stream.other.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    requests = house.ask(f"/api/v1/requests?service={SERVICE}").json["recent"]
    assert [request["loaded"] for request in requests[-2:]] == [True, True]


def test_it_is_ready_when_vllm_is_and_not_before(house: House, first_stream: FirstStream) -> None:
    assert first_stream.meanwhile[0] == ("loading", False)
    assert ("ready", False) not in first_stream.meanwhile
    assert house.view["load_time"] > 2


def test_models_are_listed_with_the_context_length_that_vllm_tells(ready: House) -> None:
    listed = {model["id"]: model for model in ready.ask("/v1/models").json["data"]}
    by_vllm = ready.ask(f"/service/{SERVICE}/v1/models").json["data"][0]

    assert set(listed) == {SERVICE, MODEL}
    assert by_vllm["max_model_len"] == CONTEXT
    assert {model["ai_proxy"]["context_length"] for model in listed.values()} == {CONTEXT}
    assert {model["owned_by"] for model in listed.values()} == {"vllm"}


@pytest.mark.parametrize("model", [SERVICE, MODEL, f"{SERVICE}/{MODEL}", f"flm://vllm/{MODEL}"])
def test_a_chat_is_answered_under_every_name_and_its_tokens_are_counted(ready: House, model: str) -> None:
    answer = ready.chat(model=model)

    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    last = ready.last_request()
    assert (last["model"], last["engine"], last["status"]) == (model, "vllm", 200)
    assert (last["tokens_in"], last["tokens_out"]) == (prompt_tokens("hello"), TOKENS)


@pytest.mark.parametrize("told", [True, False])
def test_a_stream_comes_word_by_word_and_its_tokens_are_counted(ready: House, told: bool) -> None:
    with open_stream(ready, chat(stream=True, stream_options={"include_usage": told})) as connection:
        lines = connection.getresponse().read().decode().splitlines()

    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    assert said(events) == DEMO_SENTENCE
    assert len(events) > len(WORDS)
    last = ready.last_request()
    assert last["streamed"]
    assert last["time_to_first_token"] > 0
    if told:
        assert (last["tokens_in"], last["tokens_out"]) == (prompt_tokens("hello"), TOKENS)
    else:
        assert last["tokens_out"] == pytest.approx(TOKENS, abs=2)


def test_a_completion(ready: House) -> None:
    answer = ready.ask("/v1/completions", {"model": SERVICE, "prompt": "hello", "max_tokens": 100})

    assert answer.json["choices"][0]["text"] == DEMO_SENTENCE
    last = ready.last_request()
    assert (last["tokens_in"], last["tokens_out"]) == (len("hello"), TOKENS)


def test_a_response(ready: House) -> None:
    answer = ready.ask("/v1/responses", {"model": SERVICE, "input": "hello", "temperature": 0})

    assert answer.json["status"] == "completed"
    assert answer.json["output"][0]["content"][0]["text"] == DEMO_SENTENCE


def test_anthropics_messages_are_answered_by_vllm_itself(ready: House) -> None:
    message = {"model": SERVICE, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}

    answer = ready.ask("/v1/messages", message)
    counted = ready.last_request()
    direct = ready.ask(f"/service/{SERVICE}/v1/messages", {**message, "model": MODEL})
    tokens = ready.ask("/v1/messages/count_tokens", message)

    assert answer.json["content"] == [{"type": "text", "text": DEMO_SENTENCE}]
    assert {**answer.json, "id": ""} == {**direct.json, "id": ""}
    assert (counted["tokens_in"], counted["tokens_out"]) == (prompt_tokens("hello"), TOKENS)
    assert tokens.json["input_tokens"] == prompt_tokens("hello")


def test_anthropics_messages_are_streamed_as_its_events(ready: House) -> None:
    message = {"model": SERVICE, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}

    answer = ready.ask("/v1/messages", {**message, "stream": True})

    events = [json.loads(line[5:]) for line in answer.body.splitlines() if line.startswith(b"data:")]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == DEMO_SENTENCE
    last = ready.last_request()
    assert (last["tokens_in"], last["tokens_out"]) == (prompt_tokens("hello"), TOKENS)


def test_a_temperature_that_vllm_would_refuse_is_clamped(ready: House) -> None:
    refused = ready.ask(f"/service/{SERVICE}/v1/chat/completions", chat(model=MODEL, temperature=3))
    answer = ready.chat(temperature=3)

    assert refused.status == 400
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert "temperature" in answer.headers["X-AI-Proxy-Warning"]


@pytest.mark.parametrize("endpoint", ["audio/speech", "images/generations"])
def test_what_vllm_has_no_path_for_is_told_by_name(ready: House, endpoint: str) -> None:
    answer = ready.ask(f"/v1/{endpoint}", {"model": SERVICE, "input": "hello", "prompt": "hello"})

    direct = ready.ask(f"/service/{SERVICE}/v1/{endpoint}", {"model": MODEL})
    assert (answer.status, direct.status) == (501, 404)
    assert "vLLM" in answer.json["error"]["message"]


def test_when_its_server_is_killed_all_of_it_ends_and_the_next_request_starts_it_again(ready: House) -> None:
    server = ready.pid
    before = family(server)
    os.kill(find(before, "EngineCore"), signal.SIGSTOP)  # so that it neither answers nor ends by itself
    with ThreadPoolExecutor(1) as threads:
        in_flight = threads.submit(ready.chat)
        eventually(lambda: ready.view["in_flight"] == 1)

        os.kill(server, signal.SIGKILL)

        broken = in_flight.result(START)
    eventually(lambda: ready.view["state"] == "failed")
    left = family(server)
    failure = ready.view["failure"]
    again = eventually(lambda: ok if (ok := ready.chat()).status == 200 else None, START)
    assert find(before, "Worker") != server
    assert left == {}
    assert "SIGKILL" in failure
    assert broken.status == 502
    assert broken.headers["X-AI-Proxy-Error"] in {"upstream_closed", "upstream_connect_failed"}
    assert again.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert ready.pid != server


def test_what_outlives_both_its_server_and_the_proxy_is_ended_when_the_proxy_is_back(ready: House) -> None:
    server = ready.pid
    ready.proxy.kill()
    os.kill(server, signal.SIGKILL)
    eventually(lambda: server not in family(server))
    left = family(server)

    ready.proxy.serve()

    eventually(lambda: ready.view["state"] == "failed")
    assert find(left, "EngineCore")
    assert family(server) == {}


def test_a_stop_leaves_nothing_of_it_behind(ready: House) -> None:
    server = ready.pid
    before = family(server)

    answer = ready.ask(f"/api/v1/service/{SERVICE}/stop?wait=60", {})

    assert answer.status == 200
    assert find(before, "EngineCore")
    assert family(server) == {}
    assert ready.view["state"] == "stopped"
    assert ready.chat().headers["X-AI-Proxy-Error"] == "service_stopped"
