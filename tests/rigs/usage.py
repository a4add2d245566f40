"""Finished requests, for tests."""

from ai_proxy.core.usage import RequestRecord


def finished(**facts: object) -> RequestRecord:
    """Return a stream that took 3 seconds; `facts` replace what is plain about it."""
    plain: dict[str, object] = {
        "request_id": "req-1",
        "key_id": "",
        "endpoint": "/v1/chat/completions",
        "model": "llama3",
        "service_id": "llama",
        "engine": "llamacpp",
        "streamed": True,
        "status": 200,
        "error": "",
        "started": 1_700_000_000.0,
        "seconds": 3.0,
        "waited": 0.5,
        "first_token": 1.0,
        "tokens_in": 9,
        "tokens_out": 21,
        "traceparent": "",
        "parent": "",
        "first_byte": -1.0,
        "received": 0,
        "sent": 0,
    }
    return RequestRecord(**plain | facts)  # type: ignore[arg-type]
