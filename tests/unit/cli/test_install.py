import os
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from ai_proxy.cli.install import Plan, launchd_plist, systemd_unit
from ai_proxy.cli.main import run

CONFIG = """\
server: {port: 11000, limits: {shutdown_timeout: 20s}}
services: {a: {type: generic, command: [x, "${port}"], stop_grace: 25s}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my config.yaml"
    path.write_text(CONFIG)
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["service", "install", *words]) == 0
    return capsys.readouterr().out


def settings(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_grants_the_time_that_a_graceful_stop_takes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = settings(printed(capsys, "--print", "--systemd", "--config", str(config)))

    assert unit["TimeoutStopSec"] == "50"
    assert unit["KillMode"] == "process", "the next proxy adopts what a crash leaves running"
    assert f'serve --config "{config}"' in unit["ExecStart"]


def test_the_property_list_does_so_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plist = plistlib.loads(printed(capsys, "--print", "--launchd", "--config", str(config)).encode())

    assert plist["ExitTimeOut"] == 50
    assert plist["ProgramArguments"][3:6] == ["ai_proxy", "serve", "--config"]
    assert plist["ProgramArguments"][6] == str(config)
    assert plist["StandardErrorPath"] in plist["ProgramArguments"]


@pytest.fixture
def systemd_analyze() -> str:
    """Return the path of systemd's own checker; without it tests skip."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("there is no systemd-analyze")
    return found


@pytest.mark.parametrize("low_ports", [False, True])
def test_systemd_finds_nothing_wrong_with_the_unit(
    systemd_analyze: str, low_ports: bool, tmp_path: Path
) -> None:
    program = tmp_path / "my folder 100%" / "ai-proxy"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "ai-proxy.service"
    unit.write_text(systemd_unit(plan(str(program), low_ports=low_ports)))

    verdict = subprocess.run(
        [systemd_analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=30
    )

    told = [line for line in verdict.stderr.splitlines() if "ai-proxy.service" in line]
    assert (verdict.returncode, told) == (0, [])


def plan(program: str, *, low_ports: bool = False) -> Plan:
    return Plan(
        (program, "serve", "--config", '/etc/odd "$name".yaml'), "root", os.defpath, 45.0, low_ports, None
    )


def test_low_ports_are_allowed_where_they_are_needed() -> None:
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in systemd_unit(plan("/x", low_ports=True))
    assert "Capabilities" not in systemd_unit(plan("/x"))


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("server: {port: 443}", True),
        ("server: {port: 8443}\ntls: {mode: dev-selfsigned, redirect_port: 80}", True),
        ("tls: {mode: https-acme, acme: {domains: [gpu.example.com]}}", True),
        ("server: {port: 0}", False),
    ],
)
def test_which_ports_are_low(
    text: str, needs: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)

    unit = printed(capsys, "--print", "--systemd", "--config", str(config))

    assert ("CAP_NET_BIND_SERVICE" in unit) is needs


def test_a_property_list_without_a_log_is_one_too() -> None:
    assert "StandardOutPath" not in plistlib.loads(launchd_plist(plan("/x")).encode())


@pytest.mark.parametrize(("system", "word"), [("--systemd", "systemctl"), ("--launchd", "launchctl")])
def test_without_print_people_are_told_what_to_do(
    system: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in printed(capsys, system)


def test_two_systems_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "install", "--systemd", "--launchd"]) == 1
    assert "contradict" in capsys.readouterr().err
