"""One proxy for all clients: it serves the real llama.cpp with the tiny model, and engines that fail."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import Proxy, fake, free_port, llamacpp

from ai_proxy.testing.fake_engine import Behaviour

SERVICES = {
    "tiny": llamacpp("-c", "8192", "-np", "8", "--embeddings", "--pooling", "mean", "-a", "tiny"),
    "plain": fake(Behaviour.OK, "--model", "plain", type="sglang"),
    "stuck": fake(Behaviour.HANG, "--healthy", "--model", "stuck"),
    "fragile": fake(Behaviour.DIE_MID_STREAM, "--model", "fragile"),
    "held": llamacpp(start="manual"),
}
"""SGLang, for which `plain` stands in, has chat completions but no messages of Anthropic's."""


@dataclass(frozen=True, slots=True)
class House:
    """Where clients find the proxy."""

    url: str
    ollama: str
    services: tuple[str, ...] = tuple(SERVICES)

    @property
    def openai(self) -> str:
        """What clients of OpenAI's API are told."""
        return f"{self.url}/v1"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="aip-") as run_dir:
        proxy = Proxy(tmp_path_factory.mktemp("sdk"), Path(run_dir))
        ollama_port = free_port()
        server = {"port": proxy.port, "ollama_port": ollama_port}
        proxy.config.write_text(json.dumps({"server": server, "services": SERVICES}))
        try:
            proxy.serve()
            yield House(f"http://127.0.0.1:{proxy.port}", f"http://127.0.0.1:{ollama_port}")
            proxy.end()
        finally:
            proxy.clean_up()
