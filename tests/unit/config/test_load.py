from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_proxy.config.load import find_config, load, load_config
from ai_proxy.config.problems import ConfigError, Problem
from ai_proxy.config.schema import Config

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "services:\n", "server: {}\ntypes:\n", "\ufeff---\n"]
)
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text), {}) == Config()


def test_yaml_is_1_2_so_that_times_and_no_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "services: {a: {type: openai, url: http://h, models: [22:22, no, 2024-01-01]}}")

    assert load_config(path, {}).services["a"].models == ("22:22", "no", "2024-01-01")


def test_anchors_and_merges_share_settings(tmp_path: Path) -> None:
    text = """
services:
  a: &base
    type: openai
    url: http://one
    start_timeout: 3s
  b:
    <<: *base
    url: http://two
"""
    services = load_config(write(tmp_path, text), {}).services

    assert (services["b"].start_timeout, services["a"].url, services["b"].url) == (
        3.0,
        "http://one",
        "http://two",
    )


def test_references_reach_text_numbers_and_durations(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("from a file\n", encoding="utf-8")
    text = """
server: {port: "${env:PORT}"}
defaults: {idle_timeout: "${env:IDLE:-20m}"}
services:
  a:
    type: llama-cpp-server
    args: ["${env:HOME}/m.gguf", "${port}", "$${HOME}"]
    api_key: ${file:key.txt}
"""
    config = load_config(write(tmp_path, text), {"PORT": "12000", "HOME": "/root"})

    assert config.server.port == 12000
    assert config.defaults.idle_timeout == 1200.0
    assert config.services["a"].args == ("/root/m.gguf", "${port}", "${HOME}")
    key = config.services["a"].api_key
    assert key is not None
    assert key.get_secret_value() == "from a file"


def test_a_replaced_value_is_not_looked_at_again(tmp_path: Path) -> None:
    path = write(tmp_path, 'services: {a: {type: vllm, args: ["${env:X}"]}}')

    assert load_config(path, {"X": "${file:/etc/hostname}"}).services["a"].args == ("${file:/etc/hostname}",)


def test_relative_paths_begin_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    text = """
services:
  a: {type: llama-cpp-server, workdir: work}
  b: {type: vllm, image: x, volumes: ["./models:/models:ro"]}
"""
    services = load_config(write(tmp_path, text), {}).services

    assert services["a"].workdir == str(tmp_path / "work")
    assert services["b"].volumes == (f"{tmp_path}/models:/models:ro",)


def test_home_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "services: {a: {type: llama-cpp-server, workdir: ~/}}")

    assert load_config(path, {}).services["a"].workdir == str(Path.home())


def test_reprs_show_keys_and_no_values(tmp_path: Path) -> None:
    path = write(tmp_path, 'services: {a: {type: openai, url: "http://${env:S}", api_key: "${env:S}"}}')

    loaded = load(path, {"S": "verysecret"})

    assert "verysecret" not in repr(loaded)
    assert "'api_key'" in repr(loaded.config.services["a"])


def test_errors_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "services:\n  a: {type: opnai}\nserver: {port: x, prot: 1}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(path, {})

    assert [(p.line, p.column, p.path) for p in caught.value.problems] == [
        (2, 13, "services.a.type"),
        (3, 16, "server.port"),
        (3, 19, "server.prot"),
    ]


def problems_of(path: Path, environ: dict[str, str]) -> tuple[Problem, ...]:
    try:
        load_config(path, environ)
    except ConfigError as error:
        return error.problems
    return ()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_never_ends_in_anything_but_a_report(tmp_path: Path, data: st.DataObject) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 30))
    noise = data.draw(st.text(alphabet="abc:{}[]&*!|>'\"%@`#,?-$ \n\t019~<", max_size=12))
    path = write(tmp_path, text[:start] + noise + text[start + length :])

    problems = problems_of(path, {"HOME": "/root", "CLOUD_KEY": "k"})

    assert all(problem.message and problem.hint for problem in problems)


def test_the_file_asked_for_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "")

    found = find_config(Path("asked.yaml"), {"AI_PROXY_CONFIG": "named.yaml"}, tmp_path)

    assert found == Path("asked.yaml")


def test_the_variable_comes_before_the_folders(tmp_path: Path) -> None:
    write(tmp_path, "")

    assert find_config(None, {"AI_PROXY_CONFIG": "named.yaml"}, tmp_path) == Path("named.yaml")


def test_the_current_folder_comes_before_the_users(tmp_path: Path) -> None:
    here, user = tmp_path / "here", tmp_path / "user"
    here.mkdir()
    user.mkdir()
    users = write(user, "")

    assert find_config(None, {}, here, user) == users
    assert find_config(None, {}, here, user) != (own := write(here, ""))
    assert find_config(None, {}, here, user) == own


def test_no_file_at_all_is_fine(tmp_path: Path) -> None:
    assert find_config(None, {}, tmp_path, tmp_path) is None
