"""Finished requests, for tests."""

from dataclasses import dataclass

from ai_proxy.core.usage import Inference


@dataclass(slots=True)
class FinishedRequest(Inference):
    """A `core.usage.Finished` of which everything is known."""

    streaming: bool
    key_id: str = ""

    def tokens(self) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer."""
        return self.tokens_in, self.tokens_out

    def account(self) -> Inference:
        """Return itself."""
        return self


def finished(**facts: object) -> FinishedRequest:
    """Return a stream that took 3 seconds; `facts` replace what is plain about it."""
    plain: dict[str, object] = {
        "request_id": "req-1",
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
        "loaded": True,
        "traceparent": "",
        "parent": "",
        "first_byte": -1.0,
        "received": 0,
        "sent": 0,
    }
    known = plain | facts
    return FinishedRequest(**known, streaming=known["streamed"])  # type: ignore[arg-type]
