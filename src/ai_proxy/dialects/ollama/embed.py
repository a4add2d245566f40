"""POST /api/embed and the older /api/embeddings, asked of an engine as embeddings."""

from msgspec import Raw, Struct

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.core.ports import Clock
from ai_proxy.dialects.body import decode, without_none
from ai_proxy.dialects.completion import Usage, read, read_answer
from ai_proxy.dialects.ollama.single import SingleTranslation
from ai_proxy.dialects.ollama.timing import Stopwatch

SOMETHING = "."
"""What is embedded where the client gives nothing, only to load the model."""


class EmbedRequest(Struct):
    """The body of a request for embeddings; an engine cuts or refuses texts that are too long by itself."""

    model: str
    input: str | list[str] | None = None
    dimensions: int | None = None


class EmbeddingsRequest(Struct):
    """The body of a request for one embedding."""

    model: str
    prompt: str | None = None


class Embedding(Struct):
    """One embedding, passed on as it came."""

    embedding: Raw
    index: int = 0


class Embeddings(Struct):
    """What an engine answers."""

    data: list[Embedding]
    usage: Usage | None = None


def embed(body: bytes, clock: Clock) -> SingleTranslation:
    """Translate a request for embeddings; one without input only loads the model.

    Raises:
        InvalidRequestError: It is not what Ollama takes.
    """
    request = decode(body, EmbedRequest)
    texts = [request.input] if isinstance(request.input, str) and request.input else request.input or []
    watch = Stopwatch(clock)

    def answer(answered: bytes) -> dict[str, object]:
        found = _read(answered)
        return {
            "model": request.model,
            "embeddings": _vectors(found, len(texts)) if texts else [],
            "total_duration": watch.elapsed(),
            # Engines do not tell, and here nobody knows when the request had waited its turn.
            "load_duration": 0,
            "prompt_eval_count": (found.usage and found.usage.prompt_tokens) or 0,
        }

    return SingleTranslation(Endpoint.EMBEDDINGS, _asked(request.model, texts, request.dimensions), answer)


def embeddings(body: bytes) -> SingleTranslation:
    """Translate a request for one embedding; one without a prompt only loads the model.

    Raises:
        InvalidRequestError: It is not what Ollama takes.
    """
    request = decode(body, EmbeddingsRequest)

    def answer(answered: bytes) -> dict[str, object]:
        found = _read(answered)
        return {"embedding": _vectors(found, 1)[0] if request.prompt else []}

    texts = [request.prompt] if request.prompt else []
    return SingleTranslation(Endpoint.EMBEDDINGS, _asked(request.model, texts, None), answer)


def _asked(model: str, texts: list[str], dimensions: int | None) -> dict[str, object]:
    asked: dict[str, object] = {
        "model": model,
        "input": texts or [SOMETHING],
        "dimensions": dimensions,
        "encoding_format": "float",
    }
    return without_none(asked)


def _read(body: bytes) -> Embeddings:
    read_answer(body)
    return read(body, Embeddings)


def _vectors(found: Embeddings, count: int) -> list[Raw]:
    vectors = [one.embedding for one in sorted(found.data, key=lambda one: one.index)]
    if len(vectors) != count:
        raise UpstreamInvalidError(f"the engine answered {len(vectors)} embeddings instead of {count}")
    if not all(bytes(vector).startswith(b"[") for vector in vectors):
        raise UpstreamInvalidError("the engine answered embeddings that are not lists of numbers")
    return vectors
