"""Zero configuration: engines that run by themselves, through the proxy."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.e2e.conftest import Proxy, chat, eventually, fake, free_port
from tests.rigs.recorded_engine import Mood, recorded_engine

from ai_proxy.testing.fake_engine import Behaviour

VARIABLES = {
    "llamacpp": "LLAMA_CPP_PORT",
    "vllm": "VLLM_PORT",
    "ollama": "OLLAMA_HOST",
    "lmstudio": "LMSTUDIO_API_HOST",
}


@pytest.fixture
def machine(proxy: Proxy) -> Iterator[tuple[Proxy, ExitStack]]:
    """A proxy that detects, on a machine where nothing runs yet; the stack holds what is run on it."""
    proxy.environment["AI_PROXY_DETECT"] = "1"
    for variable in VARIABLES.values():
        proxy.environment[variable] = str(free_port())
    with ExitStack() as stack:
        yield proxy, stack


def run(proxy: Proxy, stack: ExitStack, engine: str, mood: Mood = Mood.HEALTHY) -> int:
    """Run an engine where the proxy looks for it."""
    return stack.enter_context(recorded_engine(engine, mood, port=int(proxy.environment[VARIABLES[engine]])))


def found(proxy: Proxy, name: str, state: str = "ready") -> bool:
    services = proxy.ask("/api/v1/services").json["services"]
    return any((one["id"], one["state"]) == (name, state) for one in services)


def test_an_engine_is_served_without_any_configuration_and_leaves_as_it_came(
    machine: tuple[Proxy, ExitStack],
) -> None:
    proxy, stack = machine
    run(proxy, stack, "ollama")
    proxy.config.write_text(f"server: {{port: {proxy.port}}}\nengine: {{cache_ttl: 1s}}\n")
    proxy.serve()
    eventually(lambda: found(proxy, "ollama"))

    answer = proxy.ask("/service/ollama/v1/chat/completions", chat(model="tiny"))
    listed = proxy.cli("engines", "detect", "--engine", "ollama").stdout
    stack.close()
    gone = eventually(lambda: proxy.ask("/service/ollama/api/version").status == 404, seconds=60)

    assert answer.json["choices"][0]["message"]["content"] == " the quick brown"
    assert "RunningHealthy" in listed
    assert gone


def test_declared_services_and_reloads_do_not_mind(machine: tuple[Proxy, ExitStack]) -> None:
    proxy, stack = machine
    port = run(proxy, stack, "vllm")
    run(proxy, stack, "ollama")
    own = fake(Behaviour.OK)
    proxy.configure(mine={"type": "vllm", "url": f"http://127.0.0.1:{port}"}, own=own)
    proxy.serve()
    eventually(lambda: found(proxy, "ollama"))

    proxy.configure(own=own, other=own)
    report = proxy.ask("/api/v1/config/reload", method="POST").json

    assert report["added"] == ["other", "vllm"]  # its declaration is gone, itself it is still there
    assert (report["removed"], report["restarted"]) == (["mine"], [])
    assert found(proxy, "ollama")


def test_what_the_proxy_runs_itself_is_no_find(machine: tuple[Proxy, ExitStack]) -> None:
    proxy, _ = machine
    port = int(proxy.environment["LLAMA_CPP_PORT"])
    proxy.environment["OLLAMA_HOST"] = f"127.0.0.1:{proxy.port}"
    proxy.configure(mine=fake(Behaviour.OK, "--port", str(port), port=port))
    proxy.serve()
    proxy.cli("start", "mine")

    engines = {
        one["engine"]: one for one in proxy.ask("/api/v1/engines/detect?fresh", method="POST").json["engines"]
    }

    assert engines["llamacpp"]["detail"] == "service 'mine' is at that address"
    assert engines["ollama"]["detail"] == "ai-proxy itself is at that address"
    assert [one["id"] for one in proxy.ask("/api/v1/services").json["services"]] == ["mine"]


def test_detection_can_be_turned_off(machine: tuple[Proxy, ExitStack]) -> None:
    proxy, stack = machine
    run(proxy, stack, "ollama")
    del proxy.environment["AI_PROXY_DETECT"]
    proxy.config.write_text(f"server: {{port: {proxy.port}}}\nengine: {{detect: false}}\n")
    proxy.serve()

    engines = proxy.ask("/api/v1/engines").json["engines"]

    assert [one["state"] for one in engines if one["engine"] == "ollama"] == ["RunningHealthy"]
    assert proxy.ask("/api/v1/services").json["services"] == []
