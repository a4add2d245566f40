from tests.rigs.plane import FakePlane
from tests.unit.cli.conftest import CommandLine

from ai_proxy.core.ports import Model


async def test_models_list_shows_every_model_and_how_its_service_stands(
    command: CommandLine, plane: FakePlane
) -> None:
    plane.listed["coder"] = (Model("coder", context_length=8192),)

    ran = await command("models", "list")

    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["MODEL", "SERVICE", "ENGINE", "STATE", "CONTEXT"],
        ["llama3", "llama3", "llamacpp", "stopped", "-"],
        ["coder", "coder", "llamacpp", "ready", "8,192"],
    ]


async def test_models_list_for_scripts_has_every_fact(command: CommandLine, plane: FakePlane) -> None:
    ran = await command("models", "list", "--format", "json")

    assert [(one["name"], one["state"], one["target"]) for one in ran.data] == [
        ("llama3", "stopped", "llama3"),
        ("coder", "ready", "coder"),
    ]


async def test_models_list_without_a_running_server_says_how_to_start_one(command: CommandLine) -> None:
    ran = await command("models", "list")

    assert (ran.code, ran.out) == (1, "")
    assert "ai-proxy serve" in ran.err
