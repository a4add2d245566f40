"""Backends that do what backends do; the client must always be told, and nothing may leak."""

import http.client
import json

import psutil
import pytest
from tests.e2e.conftest import Proxy, chat, eventually, fake

from ai_proxy.testing.fake_engine import Behaviour

CHAT = "/service/bad/v1/chat/completions"
GIVEN_UP = ("service_failed", "start_timeout")
"""What a request is told when its backend does not get ready; the second if the backend takes long to end."""


def in_flight(proxy: Proxy) -> int:
    count: int = proxy.service("bad")["in_flight"]
    return count


def stream_to_its_end(proxy: Proxy) -> bytes:
    """Read a streamed chat; raise IncompleteRead when it was truncated."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    try:
        connection.request("POST", CHAT, json.dumps(chat(stream=True)), {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


def test_one_that_exits_at_once_is_told_with_its_exit_code_and_last_words(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.EXIT_AT_ONCE))
    proxy.serve()

    answer = proxy.ask(CHAT, chat())

    assert answer.status == 503
    assert answer.headers["X-AI-Proxy-Error"] == "service_failed"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "exit code 3" in answer.json["detail"]
    assert answer.json["log_tail"]
    assert proxy.service("bad")["exit_code"] == 3


def test_one_that_never_gets_ready_is_given_up_and_ended(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.NEVER_READY, start_timeout="1s"))
    proxy.serve()

    answer = proxy.ask(CHAT, chat())

    assert answer.headers["X-AI-Proxy-Error"] in GIVEN_UP
    assert "not ready within 1 s" in answer.json["detail"]
    eventually(lambda: not proxy.backends())


def test_one_that_loads_slowly_is_waited_for(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.SLOW_LOAD, "--seconds", "1"))
    proxy.serve()

    answer = proxy.ask(CHAT, chat())

    assert answer.status == 200
    assert proxy.service("bad")["load_time"] >= 1


def test_one_that_hangs_is_given_up(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.HANG, start_timeout="2s"))
    proxy.serve()

    answer = proxy.ask(CHAT, chat())

    assert answer.headers["X-AI-Proxy-Error"] in GIVEN_UP
    eventually(lambda: not proxy.backends())


def test_one_that_talks_garbage_never_counts_as_ready(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.GARBAGE, start_timeout="2s"))
    proxy.serve()

    answer = proxy.ask(CHAT, chat())

    assert answer.status == 503
    assert answer.headers["X-AI-Proxy-Error"] in GIVEN_UP


def test_one_that_dies_in_the_middle_of_a_stream_leaves_a_truncated_message(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.DIE_MID_STREAM))
    proxy.serve()

    with pytest.raises(http.client.IncompleteRead):
        stream_to_its_end(proxy)

    eventually(lambda: proxy.service("bad")["state"] == "failed")
    assert proxy.service("bad")["exit_code"] == 3
    assert in_flight(proxy) == 0


def test_one_that_crashes_after_a_request_is_started_again_for_the_next(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.CRASH_AFTER, "--requests", "1"))
    proxy.serve()
    first = proxy.ask(CHAT, chat())

    proxy.ask(CHAT, chat())
    eventually(lambda: proxy.service("bad")["failures"] >= 1)
    again = eventually(lambda: ok if (ok := proxy.ask(CHAT, chat())).status == 200 else None)

    assert first.status == again.status == 200
    assert proxy.service("bad")["starts"] == 2


def test_one_that_stalls_in_a_stream_is_cut_off_by_the_idle_limit(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.STALL, stream_idle_timeout="1s"))
    proxy.serve()

    with pytest.raises(http.client.IncompleteRead):
        stream_to_its_end(proxy)

    eventually(lambda: in_flight(proxy) == 0)


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_one_that_floods_its_log_costs_bounded_memory_and_answers(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.FLOOD_LOG))
    proxy.serve()
    proxy.ask(CHAT, chat())
    assert proxy.process is not None
    before = psutil.Process(proxy.process.pid).memory_info().rss

    answers = [proxy.ask(CHAT, chat()).status for _ in range(100)]
    grown = psutil.Process(proxy.process.pid).memory_info().rss - before

    assert set(answers) == {200}
    assert grown < 30 * 1024 * 1024


@pytest.mark.threat("a backend", "survival of its stop")
def test_one_that_ignores_sigterm_is_killed_after_its_grace(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.IGNORE_SIGTERM))
    proxy.serve()
    proxy.ask(CHAT, chat())

    stopped = proxy.cli("stop", "bad")

    assert stopped.returncode == 0
    assert proxy.backends() == []
    assert proxy.service("bad")["state"] == "stopped"


@pytest.mark.threat("a backend", "survival of its stop")
def test_one_with_stubborn_children_is_ended_with_all_of_them(proxy: Proxy) -> None:
    proxy.configure(bad=fake(Behaviour.CHILDREN))
    proxy.serve()
    proxy.ask(CHAT, chat())
    family = proxy.backends()

    proxy.cli("stop", "bad")

    assert len(family) == 3
    assert proxy.backends() == []


def test_a_program_that_is_not_there_is_told_with_what_to_do(proxy: Proxy) -> None:
    proxy.configure(bad={"type": "generic", "command": ["no-such-program", "${port}"]})
    proxy.serve()

    answer = proxy.ask(CHAT, chat())
    command = proxy.cli("start", "bad")

    assert answer.headers["X-AI-Proxy-Error"] == "service_failed"
    assert "no-such-program" in answer.json["detail"]
    assert command.returncode == 1
    assert "no-such-program" in command.stderr
    assert "Traceback" not in command.stderr
