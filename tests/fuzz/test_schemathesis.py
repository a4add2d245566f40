"""Requests made up from the OpenAPI document, right ones and wrong ones, to a proxy with llama.cpp."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from tests.e2e.conftest import Proxy, llamacpp

from ai_proxy.api.application import openapi_document

CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": True, "max-examples": 5, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "request-timeout": 20.0,
    }
)
NAMES = ("llama3", "embedder", "ranker", "whisper", "speaker", "painter")
"""Of models that the document's examples speak of, a service among them: so they reach an engine."""
FOREVER = r"/events$"
"""What goes on until the client leaves."""
KEPT = r"^/api/v1/(keys|usage|policy|audit|settings)"
"""What decides who may call: asked at random, it would shut the rest out. It has a test of its own."""

schema = (
    schemathesis.openapi.from_dict(openapi_document(), config=CONFIG)
    .include(path_regex=r"^/(api/)?v1/")
    .exclude(path_regex=FOREVER)
    .exclude(path_regex=KEPT)
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="aip-") as run_dir:
        proxy = Proxy(tmp_path_factory.mktemp("schemathesis"), Path(run_dir))
        try:
            proxy.configure(llama3=llamacpp(models=list(NAMES)))
            proxy.serve()
            yield f"http://127.0.0.1:{proxy.port}"
            proxy.end()
        finally:
            proxy.clean_up()


@schema.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_documented(case: schemathesis.Case[Any], url: str) -> None:
    case.query.pop("follow", None)  # for ever
    case.query.pop("wait", None)  # for an hour

    response = case.call(base_url=url)

    if "x-ai-proxy-error" not in response.headers:
        return  # an answer of the engine's, or of no error
    documented = case.operation.definition.raw["responses"]
    assert response.status_code < 500 or str(response.status_code) in documented
    assert is_told_as_the_api_tells_errors(case.path, response.json())


def is_told_as_the_api_tells_errors(path: str, body: dict[str, Any]) -> bool:
    if path.startswith("/v1/messages"):
        return {"type", "message"} <= set(body["error"])
    told = body["error"] if path.startswith("/v1/") else body
    return {"code", "request_id"} <= set(told)
