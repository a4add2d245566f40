"""What docs/docker.md, the Dockerfile and compose.yaml say holds."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load_config

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "docker.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)


def parse(text: str) -> Any:
    """Return a Compose file; its own tags, `!reset` and `!override`, are left out."""
    return YAML(typ="safe", pure=True).load(re.sub(r"!(reset|override)\b", "", text))


COMPOSE: dict[str, Any] = parse((ROOT / "compose.yaml").read_text(encoding="utf-8"))
CONFIGURATIONS = [block for block in blocks("yaml") if "networks:\n" not in block]
(OVERRIDE,) = [parse(block) for block in blocks("yaml") if "networks:\n" in block]


def instructions() -> list[list[tuple[str, str]]]:
    """Return the Dockerfile's stages, each a list of instructions with what they say."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line]
    stages: list[list[tuple[str, str]]] = []
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if stages:  # ARG stands before them
            stages[-1].append((name, rest.strip()))
    return stages


def said(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


@pytest.mark.parametrize("block", CONFIGURATIONS)
def test_every_configuration_shown_loads(block: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(block)

    (service,) = build_services(load_config(config, {}))

    assert service.launch.runtime == "docker"


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOCS.read_text(encoding="utf-8"))

    assert [link for link in links if "://" not in link and not (DOCS.parent / link).exists()] == []


def test_every_error_shown_is_one_the_program_says() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src/ai_proxy/runtimes/docker").glob("*.py"))
    spoken = re.sub(r"\"\n\s*f?\"", "", source)
    table = DOCS.read_text(encoding="utf-8").partition("## When something is wrong")[2].partition("##")[0]

    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    errors = [error for row in rows for error in re.findall("`(.*?)`", row)]
    parts = [part.strip() for error in errors for part in re.split(r"\.\.\.| N$", error) if part.strip()]

    assert len(errors) >= 10
    assert [part for part in parts if part not in spoken] == []


def test_the_image_is_built_from_what_the_build_is_given() -> None:
    build, final = instructions()
    given = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    copied = [word for rest in said(build, "COPY") for word in shlex.split(rest)[:-1]]

    assert "*" in given
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {f"!{name}" for name in copied} == {line for line in given if line.startswith("!")}
    assert said(final, "COPY") == ["--from=build /opt/ai-proxy /opt/ai-proxy"]


def test_all_that_is_installed_in_the_image_is_checked_against_the_lock() -> None:
    build, final = instructions()

    installs = [rest for rest in said(build, "RUN") if rest.startswith("uv pip install")]

    assert installs == [
        "uv pip install --require-hashes --constraints requirements.lock --requirements pyproject.toml",
        "uv pip install --no-deps --build-constraints requirements.lock .",
    ]
    assert [rest for rest in said(build, "RUN") if rest.startswith("pip")] == [
        "pip install --no-cache-dir --require-hashes --no-deps --requirement /requirements-uv.lock"
    ]
    assert not any("pip" in rest for rest in said(final, "RUN"))


def test_what_installs_it_is_checked_by_hash() -> None:
    text = (ROOT / "requirements-uv.lock").read_text(encoding="utf-8")

    assert re.findall(r"^[a-z]\S*==", text, re.MULTILINE) == ["uv=="]
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= 10


def test_the_image_runs_without_privileges_and_says_how_it_is() -> None:
    _, final = instructions()

    assert said(final, "USER") == ["10001:10001"]
    assert json.loads(said(final, "ENTRYPOINT")[0]) == ["ai-proxy"]
    assert json.loads(said(final, "CMD")[0]) == ["serve", "--host", "0.0.0.0"]
    assert json.loads(said(final, "HEALTHCHECK")[0].partition(" CMD ")[2]) == ["ai-proxy", "ps"]
    assert said(final, "EXPOSE") == ["11000"]
    assert json.loads(said(final, "VOLUME")[0]) == ["/var/lib/ai-proxy"]


def test_both_stages_are_of_one_base() -> None:
    bases = [said(stage, "FROM")[0].split()[0] for stage in instructions()]

    assert bases == ["$BASE"] * 2
    assert "\nARG BASE=python:3.12-slim\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert COMPOSE["services"]["proxy"]["build"]["args"]["BASE"].endswith(":-python:3.12-slim}")


def test_compose_publishes_on_loopback_only_and_takes_every_power_away() -> None:
    proxy = COMPOSE["services"]["proxy"]

    assert proxy["ports"] == ["127.0.0.1:11000:11000"]
    assert proxy["read_only"] is True
    assert proxy["cap_drop"] == ["ALL"]
    assert proxy["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit", "ulimits"} <= proxy.keys()


def test_compose_mounts_what_the_image_looks_for() -> None:
    _, final = instructions()
    variables = dict(word.split("=", 1) for word in shlex.split(" ".join(said(final, "ENV"))))
    proxy = COMPOSE["services"]["proxy"]

    config, data, _ = proxy["volumes"]

    assert config["target"] == str(Path(variables["AI_PROXY_CONFIG"]).parent)
    assert data == f"data:{variables['AI_PROXY_DATA_DIR']}"
    assert proxy["tmpfs"][0].startswith(f"{variables['AI_PROXY_RUN_DIR']}:mode=0700,uid=10001")
    assert set(COMPOSE["volumes"]) == {"data"}


def test_behind_a_socket_proxy_services_do_not_join_the_network_of_the_socket() -> None:
    proxy = OVERRIDE["services"]["proxy"]

    assert min(proxy["networks"]) == COMPOSE["services"]["proxy"]["networks"][0] == "models"
    assert OVERRIDE["services"]["socket"]["networks"] == ["socket"]
    assert OVERRIDE["networks"]["socket"]["internal"] is True
    assert not any("docker.sock" in str(volume) for volume in proxy["volumes"])


def test_every_call_of_the_engine_is_listed_for_those_who_filter_them() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src/ai_proxy/runtimes/docker").glob("*.py"))
    literals = re.findall(
        r"\"((?:\{(?:path|self\._path)\})?/(?:containers|images|networks|events|info|_ping|stop"
        r"|kill|top|stats|logs)\b[^\"]*)\"",
        source,
    )
    table = re.findall(r"^\| (?:GET|POST|DELETE).*", DOCS.read_text(encoding="utf-8"), re.MULTILINE)

    called = {re.sub(r"^\{(path|self\._path)\}", "/containers/{id}", literal) for literal in literals}
    called = {re.sub(r"\{.*?\}", "{}", path) for path in called}
    listed = {re.sub(r"\{.*?\}", "{}", path) for row in table for path in re.findall(r"`(/.*?)`", row)}

    assert called == listed
