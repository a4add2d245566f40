"""The main job: a request starts the real llama.cpp, and its words stream through the proxy."""

import http.client
import json
import os

from tests.e2e.conftest import Proxy, chat, eventually, llamacpp

from ai_proxy.data import DEMO_SENTENCE

CHAT = "/service/tiny/v1/chat/completions"


def read_stream(response: http.client.HTTPResponse) -> str:
    """Return the text of a streamed chat."""
    text = ""
    for line in response:
        if line.startswith(b"data: {"):
            text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    return text


def test_the_first_request_starts_llamacpp_and_is_answered(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    before = proxy.service("tiny")["state"]

    answer = proxy.ask(CHAT, chat())

    assert before == "stopped"
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"].strip() == DEMO_SENTENCE
    assert answer.headers["X-Request-ID"]
    assert proxy.service("tiny")["state"] == "ready"


def test_a_stream_arrives_word_by_word(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    body = json.dumps(chat(stream=True))

    connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
    text = read_stream(connection.getresponse())

    connection.close()
    assert text.strip() == DEMO_SENTENCE


def test_an_ordinary_end_leaves_no_backend_behind(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    proxy.ask(CHAT, chat())
    running = proxy.backends()

    code = proxy.end()

    assert code == 0
    assert len(running) == 1
    assert proxy.backends() == []


def test_a_backend_survives_the_death_of_the_proxy_and_serves_again(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    body = json.dumps(chat(stream=True))
    connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.readline()
    pid = proxy.service("tiny")["ref"]

    proxy.kill()
    proxy.serve()
    answer = proxy.ask(CHAT, chat())

    connection.close()
    assert answer.json["choices"][0]["message"]["content"].strip() == DEMO_SENTENCE
    assert proxy.service("tiny")["ref"] == pid
    assert proxy.backends() == [int(pid)]
    assert proxy.cli("stop", "tiny").returncode == 0
    assert proxy.backends() == []


def test_a_backend_whose_declaration_changed_is_swept(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    proxy.ask(CHAT, chat())
    pid = int(proxy.service("tiny")["ref"])

    proxy.kill()
    proxy.configure(tiny=llamacpp("-np", "2"))
    proxy.serve()

    eventually(lambda: not proxy.backends())
    answer = proxy.ask(CHAT, chat())
    assert answer.status == 200
    assert proxy.service("tiny")["ref"] != str(pid)


def test_a_crash_of_llamacpp_is_told_and_the_next_request_starts_it_again(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()
    proxy.ask(CHAT, chat())
    os.kill(int(proxy.service("tiny")["ref"]), 9)

    eventually(lambda: proxy.service("tiny")["state"] == "failed")
    view = proxy.service("tiny")
    refused = proxy.ask(CHAT, chat())
    answer = eventually(lambda: ok if (ok := proxy.ask(CHAT, chat())).status == 200 else None)

    assert "SIGKILL" in view["failure"]
    assert refused.status == 503
    assert refused.headers["X-AI-Proxy-Error"] == "service_failed"
    assert refused.headers["Retry-After"] == "1"
    assert answer.json["choices"][0]["message"]["content"].strip() == DEMO_SENTENCE


def test_an_unused_service_is_stopped(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp(idle_timeout="300ms"))
    proxy.serve()
    proxy.ask(CHAT, chat())

    eventually(lambda: proxy.service("tiny")["state"] == "stopped")

    assert proxy.backends() == []
    assert "unused" in proxy.service("tiny")["reason"]


def test_the_command_line_stops_starts_and_shows_it(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()

    started = proxy.cli("start", "tiny")
    shown = json.loads(proxy.cli("--format", "json", "ps").stdout)
    logged = proxy.cli("logs", "tiny", "--tail", "200")
    stopped = proxy.cli("stop", "tiny")
    held = proxy.ask(CHAT, chat())
    unknown = proxy.cli("start", "tinny")

    assert (started.returncode, stopped.returncode) == (0, 0)
    assert shown["version"] == "1.0"
    assert shown["data"][0]["state"] == "ready"
    assert "listening" in logged.stdout
    assert held.headers["X-AI-Proxy-Error"] == "service_stopped"
    assert unknown.returncode == 1
    assert "tiny" in unknown.stderr
    assert "Traceback" not in unknown.stderr
