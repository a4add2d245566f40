import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.config.build import build_services, server_settings
from ai_proxy.config.load import load_config
from ai_proxy.config.references import Resolved
from ai_proxy.config.schema import Config
from ai_proxy.config.types import built_in_types
from ai_proxy.core.service import (
    DockerLaunch,
    ExternalLaunch,
    Mount,
    ProcessLaunch,
    Resources,
    Service,
    StartPolicy,
    Upstream,
)
from ai_proxy.core.settings import ServerSettings
from ai_proxy.engines.catalog import BUILT_IN


def build(service: dict[str, object], **parts: object) -> Service:
    (built,) = build_services(Config.model_validate({"services": {"s": service}, **parts}))
    return built


def process(service: dict[str, object], **parts: object) -> ProcessLaunch:
    launch = build(service, **parts).launch
    assert isinstance(launch, ProcessLaunch)
    return launch


def docker(service: dict[str, object], **parts: object) -> DockerLaunch:
    launch = build(service, **parts).launch
    assert isinstance(launch, DockerLaunch)
    return launch


def test_llama_cpp_without_a_command_runs_llama_server_or_the_embedded_one() -> None:
    launch = process({"type": "llama-cpp-server", "args": ["-m", "x.gguf"]})

    assert launch.command == (
        *("llama-server", "-m", "x.gguf"),
        *("--host", "127.0.0.1", "--port", "${port}"),
    )
    assert launch.fallback == (sys.executable, "-m", "ai_proxy.engines.llamacpp_embedded")
    assert launch.port is None


def test_a_command_is_taken_as_it_stands_with_the_arguments_after_it() -> None:
    launch = process(
        {"type": "llama-cpp-server", "command": ["my-llama", "${port}"], "args": ["-v"], "port": 9000}
    )

    assert (launch.command, launch.fallback, launch.port) == (("my-llama", "${port}", "-v"), (), 9000)


def test_a_container_gets_everything_that_is_said_of_it() -> None:
    launch = docker(
        {
            "type": "llama-cpp-server",
            "image": "llama:cuda",
            "port": 9999,
            "host_port": 18080,
            "args": ["-m", "/models/x.gguf"],
            "env": {"URL": "http://localhost:${port}"},
            "volumes": ["/models:/models:ro"],
            "gpus": ["0", "GPU-1b2c"],
            "docker": {"memory_mb": 512, "cpus": 2, "cap_drop": ["ALL"], "healthcheck": {"test": ["true"]}},
        }
    )

    assert launch.image == "llama:cuda"
    assert launch.args == ("-m", "/models/x.gguf", "--host", "0.0.0.0", "--port", "9999")
    assert (launch.port, launch.host_port) == (9999, 18080)
    assert launch.env == {"URL": "http://localhost:9999"}
    assert launch.mounts == (Mount("/models", "/models", read_only=True),)
    assert launch.gpus == ("device=0", "device=GPU-1b2c")
    assert (launch.memory_mb, launch.cpus, launch.cap_drop) == (512, 2.0, ("ALL",))
    assert launch.healthcheck is not None


@pytest.mark.parametrize(
    ("gpus", "expected"), [("all", ("all",)), ("none", ()), (2, ("2",)), (0, ()), (["1"], ("device=1",))]
)
def test_gpus_of_a_container(gpus: object, expected: tuple[str, ...]) -> None:
    assert docker({"type": "vllm", "image": "x", "gpus": gpus}).gpus == expected


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [("all", {}), ("none", {"CUDA_VISIBLE_DEVICES": "-1"}), (["0", "2"], {"CUDA_VISIBLE_DEVICES": "0,2"})],
)
def test_gpus_of_a_process(gpus: object, expected: dict[str, str]) -> None:
    assert process({"type": "vllm", "gpus": gpus}).env == expected


def test_a_type_brings_its_image_port_and_health_path() -> None:
    service = build({"type": "ollama", "runtime": "docker"})

    launch = service.launch
    assert isinstance(launch, DockerLaunch)
    assert (launch.image, launch.port, service.health_path) == ("ollama/ollama:latest", 11434, "/api/version")
    assert launch.env == {"OLLAMA_HOST": "0.0.0.0:11434"}


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("https://api.example.com", Upstream("api.example.com", 443, tls=True)),
        ("http://10.0.0.5:8000/llm/", Upstream("10.0.0.5", 8000, base_path="/llm")),
        ("http://[::1]/", Upstream("::1", 80)),
    ],
)
def test_an_external_service_has_an_upstream_per_url(url: str, upstream: Upstream) -> None:
    assert build({"type": "generic", "url": url}).launch == ExternalLaunch((upstream,))
    assert build({"type": "generic", "urls": [url, url]}).launch == ExternalLaunch((upstream, upstream))


def test_an_external_service_is_watched_from_the_beginning_and_never_stopped() -> None:
    service = build({"type": "openai", "url": "http://h", "api_key": Resolved("k")})

    assert (service.start, service.idle_timeout, service.start_timeout) == (StartPolicy.ALWAYS, 0.0, 10.0)
    assert (service.api_key, service.health_path) == ("k", "/v1/models")


def test_lm_studio_is_looked_for_where_it_usually_runs() -> None:
    assert build({"type": "lm-studio"}).launch == ExternalLaunch((Upstream("127.0.0.1", 1234),))


def test_a_service_goes_before_the_defaults_and_these_before_the_program() -> None:
    service = build(
        {"type": "vllm", "idle_timeout": "1h", "resource_requirements": {"vram_required_mb": 5}},
        defaults={"idle_timeout": "2h", "stop_grace": "3s", "start": "manual"},
    )

    assert (service.idle_timeout, service.stop_grace, service.start_timeout) == (3600.0, 3.0, 300.0)
    assert service.start is StartPolicy.MANUAL
    assert service.resources == Resources(0, 5)


def test_containers_are_kept_on_exit_and_processes_are_not() -> None:
    assert build({"type": "vllm", "image": "x"}).keep_on_exit
    assert not build({"type": "vllm"}).keep_on_exit
    assert build({"type": "vllm", "on_exit": "keep"}).keep_on_exit


def test_own_types_extend_others() -> None:
    types = {
        "mine": {"extends": "base", "args": ["-b"], "health_path": "none"},
        "base": {"extends": "vllm", "args": ["-a"], "env": {"A": "1"}},
    }
    service = build({"type": "mine", "args": ["-c"]}, types=types)

    launch = service.launch
    assert isinstance(launch, ProcessLaunch)
    assert launch.command == (
        *("vllm", "serve", "-a", "-b", "-c"),
        *("--host", "127.0.0.1", "--port", "${port}"),
    )
    assert launch.env == {"A": "1"}
    assert (service.engine, service.health_path) == ("vllm", None)


def test_an_own_type_with_an_image_is_run_in_it() -> None:
    launch = docker({"type": "mine"}, types={"mine": {"extends": "vllm", "image": "mine:1"}})

    assert (launch.image, launch.port) == ("mine:1", 8000)


def test_an_own_type_with_a_command_is_run_by_it() -> None:
    types = {"mine": {"extends": "llama-cpp-server", "command": ["x", "${port}"]}}

    launch = process({"type": "mine", "args": ["-a"]}, types=types)

    assert (launch.command, launch.fallback) == (("x", "${port}", "-a"), ())


def test_every_built_in_type_names_an_engine_that_exists() -> None:
    assert {template.engine for template in built_in_types().values()} == set(BUILT_IN)


def test_a_server_without_settings_is_as_core_says() -> None:
    assert server_settings(Config()) == ServerSettings()


def test_server_settings_are_in_bytes_and_seconds() -> None:
    limits: dict[str, object] = {
        "max_json_body_mb": 1,
        "max_head_kb": 2,
        "max_held_bodies_mb": 3,
        "max_held_bodies_per_client_mb": 2,
        "head_timeout": "500ms",
        "body_timeout": 0,
    }

    settings = server_settings(
        Config.model_validate({"server": {"port": 0, "watch": True, "limits": limits}})
    )

    assert (settings.port, settings.watch) == (0, True)
    assert (settings.limits.max_json_body, settings.limits.max_head) == (1024 * 1024, 2048)
    assert settings.limits.max_held_bodies == 3 * 1024 * 1024
    assert settings.limits.max_held_bodies_per_client == 2 * 1024 * 1024
    assert (settings.limits.head_timeout, settings.limits.body_timeout) == (0.5, 0.0)


WORDS = st.text("abcd-/", min_size=1, max_size=6)

MATTERS = {
    "args": st.lists(WORDS, max_size=3),
    "env": st.dictionaries(st.sampled_from("ABC"), WORDS, max_size=2),
    "port": st.integers(1024, 65535),
    "api_key": WORDS.map(Resolved),
    "health_path": WORDS.map("/".__add__),
    "gpus": st.sampled_from([["0"], ["1"], "none"]),
}
DOES_NOT_MATTER = {
    "models": st.lists(WORDS, min_size=1, max_size=3),
    "idle_timeout": st.sampled_from(["1m", "2h"]),
    "start": st.sampled_from(["manual", "always"]),
    "start_timeout": st.just("7s"),
    "stop_grace": st.just("7s"),
    "max_waiting": st.integers(0, 9),
    "on_exit": st.just("keep"),
    "resource_requirements": st.just({"min_memory_mb": 5}),
}
BASES = st.fixed_dictionaries({"type": st.just("vllm")}, optional=MATTERS)


@given(base=BASES, extra=st.fixed_dictionaries({}, optional=DOES_NOT_MATTER))
def test_the_hash_stays_when_a_running_instance_still_matches(
    base: dict[str, object], extra: dict[str, object]
) -> None:
    assert build(base).config_hash == build({**base, **extra}).config_hash


@given(first=BASES, second=BASES)
def test_the_hash_tells_apart_whatever_runs_differently(
    first: dict[str, object], second: dict[str, object]
) -> None:
    one, two = build(first), build(second)

    same = (one.launch, one.health_path, one.api_key) == (two.launch, two.health_path, two.api_key)

    assert (one.config_hash == two.config_hash) == same


def test_the_hash_tells_runtimes_and_engines_apart() -> None:
    hashes = [
        build({"type": "vllm"}).config_hash,
        build({"type": "vllm", "image": "x"}).config_hash,
        build({"type": "vllm", "image": "y"}).config_hash,
        build({"type": "generic", "url": "http://h", "health_path": "/v1/models"}).config_hash,
        build({"type": "lm-studio", "url": "http://h"}).config_hash,
        build({"type": "lm-studio", "url": "http://i"}).config_hash,
    ]

    assert len(set(hashes)) == len(hashes)


def test_services_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("services: {z: {type: vllm}, a: {type: vllm}, m: {type: lm-studio}}", encoding="utf-8")

    assert [service.id for service in build_services(load_config(path, {}))] == ["z", "a", "m"]
