"""Models by name, as people see them on the command line: listed, started by a question, heard."""

import json

from tests.e2e.conftest import Proxy, llamacpp

from ai_proxy.data import DEMO_SENTENCE


def test_a_question_starts_the_model_and_its_answer_is_printed(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp("--alias", "tiny"))
    proxy.serve()

    before = proxy.cli("models", "list")
    answer = proxy.cli("chat", "hello", "--model", "tiny")
    after = json.loads(proxy.cli("models", "list", "--format", "json").stdout)["data"]

    assert before.stdout.splitlines()[1].split() == ["tiny", "tiny", "llamacpp", "stopped", "-"]
    assert (answer.returncode, answer.stdout.strip()) == (0, DEMO_SENTENCE)
    assert " tokens in " in answer.stderr
    assert [(one["state"], one["context_length"]) for one in after] == [("ready", 512)]


def test_a_question_to_no_model_says_which_there_are(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()

    asked = proxy.cli("chat", "hello", "--model", "tinny", "--format", "json")

    assert (asked.returncode, asked.stdout) == (1, "")
    error = json.loads(asked.stderr)["error"]
    assert error["code"] == "model_not_found"
    assert "'tiny'" in error["message"]


def test_the_proxy_tells_where_it_listens(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())
    proxy.serve()

    facts = proxy.ask("/api/v1/server").json

    assert facts["url"] == f"http://127.0.0.1:{proxy.port}"
    assert facts["ollama_url"] is None
