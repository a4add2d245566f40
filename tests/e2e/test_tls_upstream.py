"""A backend behind TLS, as remote APIs are."""

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.e2e.conftest import Proxy, chat, eventually

ANSWER = json.dumps({"object": "list", "data": [{"id": "remote", "object": "model"}]}).encode()


class Remote(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(ANSWER)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Path", self.path)
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


@pytest.fixture
def remote(authority: trustme.CA) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Remote)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_requests_reach_it_with_its_own_name_and_below_its_base_path(
    proxy: Proxy, remote: str, tmp_path: Path
) -> None:
    proxy.environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    proxy.configure(cloud={"type": "openai", "url": f"{remote}/base"})
    proxy.serve()
    eventually(lambda: proxy.service("cloud")["state"] == "ready")

    answer = proxy.ask("/service/cloud/v1/chat/completions?a=%20b", chat())

    assert answer.json == chat()
    assert answer.headers["X-Path"] == "/base/v1/chat/completions?a=%20b"
    assert answer.headers["X-Host"] == remote.removeprefix("https://")
    assert proxy.service("cloud")["models"] == ["cloud", "remote"]


@pytest.mark.threat("a backend", "a request despite an untrusted certificate")
def test_one_whose_certificate_is_not_trusted_never_gets_a_request(proxy: Proxy, remote: str) -> None:
    proxy.configure(cloud={"type": "openai", "url": remote, "start_timeout": "5s"})
    proxy.serve()

    answer = proxy.ask("/service/cloud/v1/chat/completions", chat())

    assert answer.status == 503
    assert "certificate" in answer.json["detail"]
