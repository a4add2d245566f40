"""POST /api/embed and the older /api/embeddings, translated into an embeddings request."""

from msgspec import Raw, Struct

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import decode, without_none
from ai_proxy.dialects.completion import Usage, read, read_completion
from ai_proxy.dialects.ollama.reply import SingleTranslation, Stopwatch

PLACEHOLDER = "."
"""The input to embed when the client gives none and only wants the model loaded."""


class EmbedRequest(Struct):
    """The body of /api/embed; engines themselves truncate or refuse an input that is too long."""

    model: str
    input: str | list[str] | None = None
    dimensions: int | None = None


class EmbeddingsRequest(Struct):
    """The body of /api/embeddings, which asks for one embedding."""

    model: str
    prompt: str | None = None


class Embedding(Struct):
    """One embedding, passed on unchanged."""

    embedding: Raw
    index: int = 0


class Embeddings(Struct):
    """The engine's response."""

    data: list[Embedding]
    usage: Usage | None = None


def embed(body: bytes, clock: Clock) -> SingleTranslation:
    """Translate a request for embeddings; one without input only loads the model.

    Raises:
        InvalidRequestError: It is not a request that Ollama accepts.
    """
    request = decode(body, EmbedRequest)
    texts = [request.input] if isinstance(request.input, str) and request.input else request.input or []
    watch = Stopwatch(clock)

    def answer(response: bytes) -> dict[str, object]:
        found = _read(response)
        return {
            "model": request.model,
            "embeddings": _vectors(found, len(texts)) if texts else [],
            "total_duration": watch.elapsed(),
            "load_duration": 0,  # engines do not report it, and the translation does not see the queue
            "prompt_eval_count": (found.usage and found.usage.prompt_tokens) or 0,
        }

    return SingleTranslation(Endpoint.EMBEDDINGS, _body(request.model, texts, request.dimensions), answer)


def embeddings(body: bytes) -> SingleTranslation:
    """Translate a request for one embedding; one without a prompt only loads the model.

    Raises:
        InvalidRequestError: It is not a request that Ollama accepts.
    """
    request = decode(body, EmbeddingsRequest)

    def answer(response: bytes) -> dict[str, object]:
        found = _read(response)
        return {"embedding": _vectors(found, 1)[0] if request.prompt else []}

    texts = [request.prompt] if request.prompt else []
    return SingleTranslation(Endpoint.EMBEDDINGS, _body(request.model, texts, None), answer)


def _body(model: str, texts: list[str], dimensions: int | None) -> dict[str, object]:
    return without_none(
        {
            "model": model,
            "input": texts or [PLACEHOLDER],
            "dimensions": dimensions,
            "encoding_format": "float",
        }
    )


def _read(body: bytes) -> Embeddings:
    read_completion(body)  # raises when the body is an error
    return read(body, Embeddings)


def _vectors(found: Embeddings, count: int) -> list[Raw]:
    vectors = [one.embedding for one in sorted(found.data, key=lambda one: one.index)]
    if len(vectors) != count:
        raise UpstreamInvalidError(f"the engine returned {len(vectors)} embeddings instead of {count}")
    if not all(bytes(vector).startswith(b"[") for vector in vectors):
        raise UpstreamInvalidError("the engine returned embeddings that are not lists of numbers")
    return vectors
