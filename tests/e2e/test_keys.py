"""The proxy opened to others: who has a key is served, who has none is not, and keys leave no trace."""

import http.client
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.conftest import PROGRAM, Answer, Proxy, chat, eventually, llamacpp

from ai_proxy.data import DEMO_SENTENCE

CHAT = "/v1/chat/completions"


def ask(proxy: Proxy, path: str, key: str = "", body: Any = None) -> Answer:
    """Send a request with a key."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        method = "GET" if body is None else "POST"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def create(proxy: Proxy, *words: str) -> tuple[str, str]:
    """Make a key on the command line; return it and its id."""
    made = proxy.cli("api-keys", "create", *words, "--format", "json")
    assert made.returncode == 0, made.stderr
    data = json.loads(made.stdout)["data"]
    return data["plain"], data["key"]["id"]


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.threat("an ordinary key", "management of the proxy")
def test_a_key_opens_models_and_nothing_else_until_it_is_revoked(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp("--alias", "tiny"))
    proxy.serve()
    assert ask(proxy, "/v1/models").status == 200  # nobody needs one while there is none
    plain, key_id = create(proxy, "laptop", "--model", "tiny")
    eventually(lambda: ask(proxy, "/v1/models").status == 401)

    answer = ask(proxy, CHAT, plain, chat(model="tiny"))
    other = ask(proxy, CHAT, plain, chat(model="nothing"))
    managing = ask(proxy, "/api/v1/services", plain)
    owners = proxy.cli("chat", "hello", "--model", "tiny")

    assert answer.json["choices"][0]["message"]["content"].strip() == DEMO_SENTENCE
    assert (other.status, managing.status) == (404, 403)
    assert (owners.returncode, owners.stdout.strip()) == (0, DEMO_SENTENCE)
    used = eventually(lambda: json.loads(proxy.cli("api-keys", "usage", "--format", "json").stdout)["data"])
    assert [(row["key_id"], row["model"], row["requests"]) for row in used] == [(key_id, "tiny", 1)]
    assert used[0]["tokens_out"] > 0

    proxy.cli("api-keys", "revoke", key_id)
    eventually(lambda: ask(proxy, CHAT, plain, chat(model="tiny")).status == 401)

    audit = proxy.cli("audit", "--format", "json").stdout
    assert f"key.create {key_id}" in audit
    assert f"key.revoke {key_id}" in audit
    assert "invalid_api_key" in eventually(
        lambda: text if "invalid_api_key" in (text := proxy.cli("audit", "--format", "json").stdout) else ""
    )


@pytest.mark.threat("an operator's mistake", "a secret in a log, an error or a shown configuration")
def test_the_plain_text_of_a_key_is_nowhere(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp("--alias", "tiny"))
    proxy.serve("--log-level", "trace")
    admin, _ = create(proxy, "admin", "--admin")
    plain, key_id = create(proxy, "laptop")
    eventually(lambda: ask(proxy, "/v1/models").status == 401)

    ask(proxy, CHAT, plain, chat(model="tiny"))
    ask(proxy, f"/v1/models?key={plain}", plain)
    ask(proxy, f"/service/tiny/{plain}", plain)
    ask(proxy, f"/api/v1/{plain}", plain)
    told = [
        ask(proxy, path, admin).body.decode()
        for path in ("/metrics", "/api/v1/keys", "/api/v1/audit", "/api/v1/requests", "/api/v1/services")
    ]
    arguments = [
        " ".join(process.cmdline()) for process in psutil.process_iter() if process.pid in proxy.backends()
    ]
    shown = [proxy.cli(*words).stdout for words in (("api-keys", "list"), ("audit",), ("logs", "tiny"))]
    proxy.end()

    secret = plain.split("_")[2]
    assert not [text for text in (*told, *shown, *arguments) if secret in text]
    assert key_id in "".join(told)
    assert files_with(proxy.folder, secret) == files_with(proxy.run_dir, secret) == []


@pytest.mark.threat("somebody on the network", "access without a key")
def test_other_machines_are_not_let_in_before_there_is_a_key(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp())

    refused = proxy.cli("serve", "--host", "0.0.0.0", "--config", str(proxy.config))
    create(proxy, "laptop")
    proxy.serve("--host", "0.0.0.0")

    assert refused.returncode == 1
    assert "api-keys create" in refused.stderr
    assert ask(proxy, "/v1/models").status == 401


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
def test_with_a_store_that_cannot_be_read_only_the_owner_is_served(proxy: Proxy) -> None:
    proxy.configure(tiny=llamacpp("--alias", "tiny"))
    data = proxy.folder / "data"
    data.mkdir(mode=0o700)
    (data / "ai-proxy.db").write_bytes(b"this is no database, and never was one" * 200)

    proxy.serve()
    client, live, owner = ask(proxy, "/v1/models"), ask(proxy, "/health"), proxy.cli("ps", "--format", "json")

    assert (client.status, client.headers["X-AI-Proxy-Error"]) == (503, "store_unavailable")
    assert live.status == 200
    assert json.loads(owner.stdout)["data"]
    assert "ai-proxy check" in proxy.log.read_text()
    assert proxy.cli("check").returncode == 1


@pytest.mark.parametrize(
    "words", [("api-keys", "list"), ("security", "policy", "show"), ("audit",), ("config", "list")]
)
def test_a_store_that_cannot_be_read_is_told_in_one_line(proxy: Proxy, words: tuple[str, ...]) -> None:
    data = proxy.folder / "data"
    data.mkdir(mode=0o700)
    (data / "ai-proxy.db").write_bytes(b"this is no database, and never was one" * 200)

    told = proxy.cli(*words)

    assert (told.returncode, told.stdout) == (1, "")
    assert len(told.stderr.splitlines()) == 1
    assert str(PROGRAM) not in told.stderr
