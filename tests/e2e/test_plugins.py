"""Engines and runtimes that other packages add by entry points."""

import shutil
from pathlib import Path

import pytest
from tests.e2e.conftest import Proxy, chat

PLUGIN = Path(__file__).parents[1] / "fixtures/plugin/madeup.py"


@pytest.fixture
def installed(proxy: Proxy, tmp_path: Path) -> Path:
    """Install a package as pip does, where only this test's proxy finds it."""
    site = tmp_path / "site"
    metadata = site / "madeup-1.0.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(PLUGIN, site)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: madeup\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[ai_proxy.engines]\nmadeup = madeup:ENGINE\nbroken = madeup:NOTHING\n"
        "[ai_proxy.runtimes]\ninside = madeup:RUNTIME\nmissing = no_such_module:RUNTIME\n"
    )
    proxy.environment["PYTHONPATH"] = str(site)
    return site


@pytest.mark.usefixtures("installed")
def test_a_service_of_an_added_engine_is_served_by_an_added_runtime(proxy: Proxy) -> None:
    proxy.configure(sage={"type": "made-up", "runtime": "inside", "options": {"words": "so it is"}})
    proxy.serve()

    answer = proxy.ask("/v1/chat/completions", chat(model="sage/wise"))

    assert (answer.status, answer.body) == (200, b"so it is")
    sage = proxy.service("sage")
    assert (sage["runtime"], sage["engine"], sage["state"]) == ("inside", "madeup", "ready")
    assert proxy.ask("/api/v1/service/sage/stop?wait=10", method="POST").status == 200
    assert proxy.service("sage")["state"] == "stopped"
    assert proxy.end() == 0


@pytest.mark.usefixtures("installed")
def test_a_plug_in_that_cannot_be_loaded_is_logged_and_the_others_are_used(proxy: Proxy) -> None:
    proxy.configure(sage={"type": "made-up", "runtime": "inside", "options": {"words": "so it is"}})
    proxy.serve()

    log = proxy.log.read_text()

    assert "cannot load the plug-in broken (madeup:NOTHING)" in log
    assert "cannot load the plug-in missing (no_such_module:RUNTIME)" in log
    assert proxy.ask("/service/sage/any").body == b"so it is"


@pytest.mark.usefixtures("installed")
def test_the_configuration_knows_what_is_installed(proxy: Proxy) -> None:
    proxy.configure(sage={"type": "made-up", "runtime": "insde", "port": 80})

    ended = proxy.cli("config", "check", "--config", str(proxy.config))

    assert ended.returncode == 1
    assert "services.sage.runtime: 'insde' is not allowed; did you mean 'inside'?" in ended.stderr


def test_without_the_package_its_types_are_unknown(proxy: Proxy) -> None:
    proxy.configure(sage={"type": "made-up", "runtime": "inside"})

    ended = proxy.cli("config", "check", "--config", str(proxy.config))

    assert ended.returncode == 1
    assert "services.sage.runtime: 'inside' is not allowed" in ended.stderr
