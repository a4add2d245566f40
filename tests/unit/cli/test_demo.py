import contextlib
import socket
from pathlib import Path

from ai_proxy.cli.demo import DEFAULT_PORT, HOST, configuration, free_port, invitation
from ai_proxy.config.build import build_services, server_settings
from ai_proxy.config.load import load_config
from ai_proxy.core.service import ProcessLaunch
from ai_proxy.data import demo_model_path


def test_configuration_is_one_that_the_proxy_takes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(configuration(12345, demo_model_path()))

    config = load_config(path, {})
    (service,) = build_services(config)

    assert server_settings(config).port == 12345
    assert isinstance(service.launch, ProcessLaunch)
    assert str(demo_model_path()) in service.launch.command


def test_port_in_use_is_not_chosen() -> None:
    with socket.socket() as taken, contextlib.suppress(OSError):  # taken by somebody else is as good
        taken.bind((HOST, DEFAULT_PORT))
        taken.listen()
        assert free_port() != DEFAULT_PORT
    assert free_port() > 0


def test_invitation_names_commands_that_reach_this_instance() -> None:
    text = invitation("http://127.0.0.1:5", 5)

    assert "ai-proxy ps --port 5" in text
    assert "http://127.0.0.1:5/service/demo/v1/chat/completions" in text
