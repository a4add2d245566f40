import json

import openai
import pytest

from ai_proxy.core.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    ProxyError,
    QueueFullError,
    ServiceFailedError,
    UnknownModelError,
    UnsupportedModalitiesError,
    UpstreamClosedError,
    UpstreamTimeoutError,
)
from ai_proxy.dialects import anthropic, ollama
from ai_proxy.dialects import openai as dialect
from ai_proxy.dialects.errors import engine_message

FAILED = ServiceFailedError("llama3 ended with exit code 1", log_tail=[f"line {n}" for n in range(50)])


def test_openai_is_told_all_that_its_clients_read() -> None:
    body = dialect.error_body(InvalidRequestError("messages: is required", "messages"), "r1")

    assert json.loads(body) == {
        "error": {
            "message": "messages: is required",
            "type": "invalid_request_error",
            "code": "invalid_request",
            "param": "messages",
            "request_id": "r1",
        }
    }
    parsed = openai.types.ErrorObject.model_validate(json.loads(body)["error"])
    assert parsed.param == "messages"


@pytest.mark.parametrize(
    ("error", "kind", "anthropics"),
    [
        (UnknownModelError("x"), "invalid_request_error", "not_found_error"),
        (BodyTooLargeError("x"), "invalid_request_error", "request_too_large"),
        (UnsupportedModalitiesError("x"), "invalid_request_error", "invalid_request_error"),
        (QueueFullError("x"), "overloaded", "overloaded_error"),
        (UpstreamClosedError("x"), "server_error", "api_error"),
        (UpstreamTimeoutError("x"), "server_error", "timeout_error"),
        (ProxyError("x"), "server_error", "api_error"),
    ],
)
def test_the_kind_of_an_error_follows_its_status(error: ProxyError, kind: str, anthropics: str) -> None:
    assert json.loads(dialect.error_body(error, "r"))["error"]["type"] == kind
    assert json.loads(anthropic.error_body(error, "r"))["error"]["type"] == anthropics


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (403, "permission_error"), (429, "rate_limit_error")]
)
def test_openai_and_anthropic_agree_on_who_may_do_what(status: int, kind: str) -> None:
    assert dialect.error_type(status) == kind
    assert anthropic.error_type(status) == kind


def test_a_param_that_is_not_known_is_null() -> None:
    assert json.loads(dialect.error_body(UnknownModelError("x"), "r"))["error"]["param"] is None
    assert json.loads(dialect.error_body(InvalidRequestError("x"), "r"))["error"]["param"] is None


def test_every_dialect_quotes_the_end_of_the_backends_log() -> None:
    said = [
        json.loads(dialect.error_body(FAILED, "r"))["error"]["message"],
        json.loads(anthropic.error_body(FAILED, "r"))["error"]["message"],
        json.loads(ollama.error_body(FAILED))["error"],
    ]

    assert set(said) == {
        "llama3 ended with exit code 1; its last log lines:\nline 45\nline 46\nline 47\nline 48\nline 49"
    }


def test_an_error_in_a_stream_is_one_event() -> None:
    assert dialect.error_event(FAILED, "r") == b"data: " + dialect.error_body(FAILED, "r") + b"\n\n"
    assert anthropic.error_event(FAILED, "r") == (
        b"event: error\ndata: " + anthropic.error_body(FAILED, "r") + b"\n\n"
    )


def test_anthropic_is_told_the_request_beside_the_error() -> None:
    assert json.loads(anthropic.error_body(UnknownModelError("x"), "r1")) == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "there is no model 'x'; GET /v1/models lists the models",
        },
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}', "File Not Found"),
        (b'{"error":"model \'tiny\' not found"}', "model 'tiny' not found"),
        (b'{"object":"error","message":"too long"}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', '{"detail":[{"loc":["body"]}]}'),
        (b"404 page not found", "404 page not found"),
        (b"<html>" + b"x" * 10_000, "<html>" + "x" * 494),
        (b"[" * 100_000, "[" * 500),
        (b"", "the engine answered 404 Not Found"),
    ],
)
def test_what_an_engine_says_in_an_error_is_found(body: bytes, words: str) -> None:
    assert engine_message(body, 404) == words


def test_a_status_without_a_name_is_told_by_its_number() -> None:
    assert engine_message(b"", 599) == "the engine answered 599"
