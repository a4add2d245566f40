import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import psutil
import pytest
from typer.main import get_command

from ai_proxy.cli.main import app
from ai_proxy.cli.output import UserError
from ai_proxy.cli.proxy import as_data, choose, started
from ai_proxy.core.options import LogFormat, LogLevel, ProxyMode, ServeOptions, overridden
from ai_proxy.core.service import Service
from ai_proxy.core.settings import AcmeSettings, Limits, TlsMode, TlsSettings
from ai_proxy.core.store_ports import Instance
from ai_proxy.instances.background import Outcome, drain_time, end, serve_command

OBEDIENT = "import time; print('x', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"


async def child(code: str) -> Process:
    """Start a process, and return when it has begun its work."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def handle_of(pid: int, **more: object) -> Instance:
    facts = {
        "id": f"id{pid}",
        "machine": socket.gethostname(),
        "pid": pid,
        "started": psutil.Process(pid).create_time() if psutil.pid_exists(pid) else 1.0,
        "host": "127.0.0.1",
        "port": 11000,
        "mode": "local-http",
        "endpoints": ("http://127.0.0.1:11000",),
        **more,
    }
    return Instance(**facts)  # type: ignore[arg-type]


async def test_a_proxy_ends_when_asked_to() -> None:
    process = await child(OBEDIENT)

    outcome = await end(handle_of(process.pid), patience=10)

    assert outcome is Outcome.STOPPED
    assert await process.wait() == -signal.SIGTERM


async def test_one_that_does_not_end_in_time_is_killed() -> None:
    process = await child(STUBBORN)

    outcome = await end(handle_of(process.pid), patience=0.1)

    assert outcome is Outcome.KILLED
    assert await process.wait() == -signal.SIGKILL


async def test_whoever_has_its_pid_by_now_is_left_alone() -> None:
    process = await child(OBEDIENT)

    outcome = await end(handle_of(process.pid, started=1.0), patience=10)

    assert outcome is Outcome.DEAD
    assert process.returncode is None
    process.kill()
    await process.wait()


def test_the_longest_end_of_a_backend_is_waited_for(service: Service) -> None:
    assert drain_time(Limits(shutdown_timeout=20), [service]) == 20 + service.stop_grace + 5


@pytest.fixture
def service(tmp_path: Path) -> Service:
    from ai_proxy.config.build import build_services
    from ai_proxy.config.load import load_config

    config = tmp_path / "config.yaml"
    config.write_text("services: {a: {type: generic, command: [x, '${port}'], stop_grace: 25s}}")
    (service,) = build_services(load_config(config, {}))
    return service


def test_every_option_reaches_the_process_that_serves(tmp_path: Path) -> None:
    options = ServeOptions(
        config=tmp_path / "c.yaml",
        host="0.0.0.0",
        port=8443,
        log_level=LogLevel.DEBUG,
        log_format=LogFormat.JSON,
        log_file=tmp_path / "x.log",
        run_dir=tmp_path / "run",
        detect=True,
        tls_mode=TlsMode.HTTPS_ACME,
        acme_domains=("a.example.com", "b.example.com"),
        acme_email="me@example.com",
    )
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]

    parsed = serve.make_context("serve", serve_command(options)[5:]).params

    assert {name: str(value) for name, value in parsed.items() if name != "acme_domain"} == {
        name: str(getattr(options, name)) for name in ServeOptions.__slots__ if name != "acme_domains"
    }
    assert tuple(parsed["acme_domain"]) == options.acme_domains


def test_the_command_line_has_the_last_word_on_tls() -> None:
    configured = TlsSettings(
        TlsMode.FILES, acme=AcmeSettings(("old.example.com",), "old@example.com", eab_kid="x")
    )

    as_configured = overridden(configured, ServeOptions())
    plain = overridden(configured, ServeOptions(tls_mode=TlsMode.OFF))
    public = overridden(configured, ServeOptions(acme_domains=("new.example.com",), acme_email=""))

    assert as_configured == configured
    assert plain.mode is TlsMode.OFF
    assert public.mode is TlsMode.HTTPS_ACME
    assert public.acme == AcmeSettings(("new.example.com",), "", eab_kid="x")


@pytest.mark.parametrize("mode", ProxyMode)
def test_every_mode_is_a_way_to_serve_and_back(mode: ProxyMode) -> None:
    assert ProxyMode.of(mode.tls) is mode


def test_every_way_to_serve_has_a_mode() -> None:
    assert {mode.tls for mode in ProxyMode} == set(TlsMode)


async def test_one_of_several_must_be_chosen() -> None:
    other = await child(OBEDIENT)
    first, second = handle_of(os.getpid()), handle_of(other.pid, port=11001)

    with pytest.raises(UserError, match="on ports 11000, 11001; choose one"):
        choose([first, second], None, None, every=False)

    assert choose([first, second], 11001, None, every=False) == [second]
    assert choose([first, second], None, first.id, every=False) == [first]
    assert choose([first, second], None, None, every=True) == [first, second]
    other.kill()
    await other.wait()


def test_a_dead_one_is_chosen_only_where_no_other_is_meant() -> None:
    alive, dead = handle_of(os.getpid()), handle_of(os.getpid(), id="dead", port=11001, started=1.0)

    assert choose([alive, dead], None, None, every=False) == [alive]
    assert choose([alive, dead], 11001, None, every=False) == [dead]
    assert choose([], 11001, None, every=False) == []


def test_one_on_another_machine_is_not_stopped_from_here() -> None:
    elsewhere = handle_of(os.getpid(), machine="gpu-box")

    with pytest.raises(UserError, match="runs on gpu-box; stop it there"):
        choose([elsewhere], None, elsewhere.id, every=False)

    assert choose([elsewhere], None, None, every=True) == []


def test_what_people_are_told_of_a_proxy_names_all_they_need() -> None:
    text = started(handle_of(os.getpid(), mode="dev-selfsigned"), Path("/data/logs/proxy-11000.log"))

    assert "http://127.0.0.1:11000" in text
    assert "log: /data/logs/proxy-11000.log" in text
    assert "ai-proxy proxy stop --port 11000" in text
    assert "ai-proxy tls trust" in text


def test_one_that_is_dead_has_no_uptime() -> None:
    ours = handle_of(os.getpid())

    assert as_data(ours, "dead")["uptime"] is None
    assert as_data(ours, "running")["uptime"] > 0
