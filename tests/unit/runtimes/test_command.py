from pathlib import Path

import pytest

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import ProcessLaunch
from ai_proxy.runtimes.process.command import build_command, choose_program

EMBEDDED = ("python", "-m", "ai_proxy.engines.llamacpp_embedded")


def nothing_installed(_: str) -> bool:
    return False


def everything_installed(_: str) -> bool:
    return True


def test_the_port_is_put_into_arguments_and_variables() -> None:
    launch = ProcessLaunch(("sh", "--port=${port}"), env={"LISTEN": "127.0.0.1:${port}"})
    command = build_command(launch, 8080, {"PATH": "/bin:/usr/bin", "LISTEN": "elsewhere"}, {})
    assert command.arguments == ("sh", "--port=8080")
    assert command.env == {"PATH": "/bin:/usr/bin", "LISTEN": "127.0.0.1:8080"}


@pytest.mark.threat("a backend", "secrets in the proxy's environment")
@pytest.mark.parametrize(("inherit_env", "seen"), [(False, set()), (True, {"CLOUD_KEY", "NVIDIA_API_KEY"})])
def test_the_environment_of_the_proxy_is_passed_on_only_where_it_is_asked_for(
    inherit_env: bool, seen: set[str]
) -> None:
    ours = {"PATH": "/bin:/usr/bin", "CUDA_HOME": "/cuda", "CLOUD_KEY": "sk-1", "NVIDIA_API_KEY": "nv-1"}
    launch = ProcessLaunch(("sh",), env={"HF_TOKEN": "hf-1"}, inherit_env=inherit_env)
    assert build_command(launch, 8080, ours, {}).env.keys() == {"PATH", "CUDA_HOME", "HF_TOKEN", *seen}


def test_a_service_cannot_override_the_marks() -> None:
    launch = ProcessLaunch(("sh",), env={"MARK": "theirs"})
    assert build_command(launch, 8080, {"PATH": "/bin:/usr/bin"}, {"MARK": "ours"}).env["MARK"] == "ours"


def test_the_fallback_replaces_only_a_program_that_is_not_there(tmp_path: Path) -> None:
    launch = ProcessLaunch(("llama-server", "-m", "a.gguf"), fallback=EMBEDDED)
    assert choose_program(launch, str(tmp_path), everything_installed) == EMBEDDED
    program = tmp_path / "llama-server"
    program.touch(0o755)
    assert choose_program(launch, str(tmp_path), everything_installed) == ("llama-server",)


def test_a_fallback_that_lacks_its_package_says_what_to_install(tmp_path: Path) -> None:
    launch = ProcessLaunch(("llama-server",), fallback=EMBEDDED)
    with pytest.raises(RuntimeFailureError, match=r"pip install .*\[llamacpp\]"):
        choose_program(launch, str(tmp_path), nothing_installed)


def test_a_missing_workdir_is_named(tmp_path: Path) -> None:
    launch = ProcessLaunch(("sh",), workdir=str(tmp_path / "gone"))
    with pytest.raises(RuntimeFailureError, match="gone is not a folder: create it"):
        build_command(launch, 8080, {}, {})
