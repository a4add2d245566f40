"""The recorded engines answer, on the wire, what was recorded."""

import socket
from collections.abc import Iterator

import pytest
from tests.rigs.recorded_engine import ENGINES, Exchange, Mood, recorded_engine, recording


def ask(port: int, request: str) -> bytes:
    """Send a request on a connection of its own and return every byte of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def get(port: int, path: str) -> tuple[str, bytes]:
    head, _, body = ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def port(engine: str) -> Iterator[int]:
    with recorded_engine(engine) as port:
        yield port


def last_of_each_path(engine: str) -> list[Exchange]:
    return list({one.path: one for one in recording(engine) if one.method == "GET"}.values())


def test_answers_are_those_recorded_byte_by_byte(engine: str, port: int) -> None:
    for exchange in last_of_each_path(engine):
        head, body = get(port, exchange.path)
        assert (head.splitlines(), body) == (list(exchange.head), exchange.answer)


def test_lengths_are_true(engine: str) -> None:
    for exchange in recording(engine):
        length = exchange.header("content-length")
        assert exchange.method == "HEAD" or not length or int(length) == len(exchange.answer), exchange.path


def test_requests_on_one_connection_are_answered_one_after_the_other(engine: str, port: int) -> None:
    one = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"

    assert ask(port, one + one).count(b"HTTP/1.1 200") == 2


def test_a_stream_is_chunked_as_it_was() -> None:
    exchange = next(one for one in recording("ollama") if one.header("transfer-encoding") and one.body)
    with recorded_engine("ollama") as port:
        request = f"POST {exchange.path} HTTP/1.1\r\nContent-Length: {len(exchange.body)}\r\n\r\n"
        answer = ask(port, request + exchange.body.decode())

    assert b"%x\r\n%b\r\n0\r\n\r\n" % (len(exchange.answer), exchange.answer) in answer


@pytest.mark.parametrize(
    ("engine", "path", "shape"),
    [
        ("ollama", "/v1/models", b'{"object":"list","data":null}\n'),
        ("vllm", "/health", b""),
        ("lmstudio", "/x", b'{"error":"Unexpected endpoint or method. (GET /x)"}'),
        ("ollama", "/x", b"404 page not found"),
    ],
)
def test_oddities_of_engines_are_kept(engine: str, path: str, shape: bytes) -> None:
    with recorded_engine(engine, Mood.EMPTY) as port:
        head, body = get(port, path)

    assert body == shape
    assert f"content-length: {len(shape)}" in head.lower()


def test_llamacpp_names_itself_while_it_loads() -> None:
    with recorded_engine("llamacpp", Mood.LOADING) as port:
        head, body = get(port, "/health")

    assert head.startswith("HTTP/1.1 503")
    assert "Server: llama.cpp" in head
    assert b'"Loading model"' in body
