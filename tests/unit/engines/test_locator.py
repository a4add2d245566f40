from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.detection import is_loopback
from ai_proxy.core.service import Upstream
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.detect.locator import find_address, find_program, parse_address
from ai_proxy.engines.profile import Locator


def locator(engine: str) -> Locator:
    found = BUILT_IN[engine].locator
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("engine", "url"),
    [
        ("llamacpp", "http://127.0.0.1:8080"),
        ("vllm", "http://127.0.0.1:8000"),
        ("ollama", "http://127.0.0.1:11434"),
        ("lmstudio", "http://127.0.0.1:1234"),
    ],
)
def test_without_a_word_from_the_environment_engines_are_at_their_usual_ports(engine: str, url: str) -> None:
    upstream, remark = find_address(locator(engine), {})

    assert (upstream.url, remark) == (url, "")


@pytest.mark.parametrize(
    ("engine", "variable", "said", "url"),
    [
        ("llamacpp", "LLAMA_CPP_PORT", "9000", "http://127.0.0.1:9000"),
        ("vllm", "VLLM_PORT", " 9000 ", "http://127.0.0.1:9000"),
        ("ollama", "OLLAMA_HOST", "0.0.0.0", "http://127.0.0.1:11434"),
        ("ollama", "OLLAMA_HOST", "[::]:9000", "http://[::1]:9000"),
        ("ollama", "OLLAMA_HOST", "http://gpu-box", "http://gpu-box:80"),
        ("lmstudio", "LMSTUDIO_API_HOST", "localhost:9000", "http://localhost:9000"),
    ],
)
def test_the_environment_says_where_an_engine_is(engine: str, variable: str, said: str, url: str) -> None:
    upstream, remark = find_address(locator(engine), {variable: said})

    assert (upstream.url, remark) == (url, "")


@pytest.mark.parametrize("said", ["tcp://10.0.0.1:8000", "99999", "a b", "http://user@host", "0", "[::1"])
def test_what_is_no_address_is_passed_over_and_told(said: str) -> None:
    upstream, remark = find_address(locator("vllm"), {"VLLM_PORT": said})

    assert upstream == Upstream("127.0.0.1", 8000)
    assert remark == "VLLM_PORT is no address and was passed over"


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    try:
        upstream = parse_address(text, 11434)
    except ValueError:
        return
    assert 0 < upstream.port < 65536
    assert upstream.host not in ("0.0.0.0", "::", "")


@given(st.ip_addresses())
def test_every_loopback_address_is_this_machine(address: object) -> None:
    assert is_loopback(str(address)) == (address.is_loopback or address.is_unspecified)  # type: ignore[attr-defined]


def test_a_program_on_the_path_is_found(tmp_path: Path) -> None:
    program = tmp_path / "ollama"
    program.touch(mode=0o755)

    assert find_program(locator("ollama"), {"PATH": str(tmp_path)}) == str(program)


def test_a_program_at_its_place_in_the_users_folder_is_found(tmp_path: Path) -> None:
    program = tmp_path / ".lmstudio" / "bin" / "lms"
    program.parent.mkdir(parents=True)
    program.touch()

    assert find_program(locator("lmstudio"), {"PATH": "/nowhere", "HOME": str(tmp_path)}) == str(program)


def test_without_a_home_nothing_is_found_there() -> None:
    elsewhere = Locator(1, "X", (), ("~/program",), (), lambda _: False, lambda _: None)

    assert find_program(elsewhere, {}) is None
