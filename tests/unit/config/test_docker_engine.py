"""Which Docker engine a configuration names."""

from pathlib import Path

import pytest

from ai_proxy.config.build import server_settings
from ai_proxy.config.load import load_config
from ai_proxy.core.errors import InvalidConfigError
from ai_proxy.core.settings import DockerSettings


def settings(folder: Path, docker: str) -> DockerSettings:
    (folder / "config.yaml").write_text(f"server: {{docker: {docker}}}")
    return server_settings(load_config(folder / "config.yaml", {})).docker


def test_without_a_word_everything_is_left_open(tmp_path: Path) -> None:
    assert settings(tmp_path, "{}") == DockerSettings()


def test_everything_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()

    said = "{host: 'tcp://gpu-box:2376', certificates: ./certs, address: 10.0.0.5, network: models}"

    assert settings(tmp_path, said) == DockerSettings(
        "tcp://gpu-box:2376", tmp_path / "certs", "10.0.0.5", "models"
    )


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        ("{host: gpu-box}", "is not the URL of a Docker engine; write for example unix:///run/docker.sock"),
        ("{host: 'unix://docker.sock'}", "is not the URL of a Docker engine"),
        ("{certificates: ./nowhere}", "there is no such folder; create it"),
        ("{address: 0.0.0.0}", "is not a reachable address; write the address of the Docker engine's"),
        ("{address: 'tcp://10.0.0.5'}", "is not a host"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, docker: str, said: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"config\.yaml:1:") as caught:
        settings(tmp_path, docker)

    assert said in str(caught.value)
