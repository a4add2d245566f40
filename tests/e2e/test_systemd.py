"""Under systemd: a genuine one, as the first process of namespaces of its own, with the printed unit."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import Proxy, eventually, fake

from ai_proxy.testing.fake_engine import Behaviour

SYSTEMD = Path("/lib/systemd/systemd")
TARGET = "[Unit]\nDescription=What the test starts\nDefaultDependencies=no\n"
SETUP = """\
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; else
mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd; fi
mkdir -p /run/systemd/system && cp "$UNITS"/* /run/systemd/system/
exec /lib/systemd/systemd --system --unit=test.target
"""
OF_THE_WHOLE_MACHINE = ("After=", "Wants=", "ProtectSystem=", "ProtectControlGroups=")
"""Settings of the unit that need the rest of the system."""


@dataclass
class Systemd:
    """A systemd that runs nothing but the proxy.

    Attributes:
        pid: Its pid, in our namespace.
    """

    pid: int

    def ctl(self, *words: str) -> str:
        """Run systemctl."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-C", "systemctl", *words]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def systemd(proxy: Proxy, tmp_path: Path) -> Iterator[Systemd]:
    if os.geteuid() != 0 or not SYSTEMD.exists() or shutil.which("nsenter") is None:
        pytest.skip("this takes root, systemd and util-linux")
    proxy.configure(kept=fake(Behaviour.OK, start="always"))
    units = tmp_path / "units"
    units.mkdir()
    printed = proxy.cli("service", "install", "--print", "--systemd", "--config", str(proxy.config)).stdout
    lines = [line for line in printed.splitlines() if not line.startswith(OF_THE_WHOLE_MACHINE)]
    unit = "\n".join(lines).replace("[Unit]", "[Unit]\nDefaultDependencies=no")
    unit = unit.replace("[Service]", "[Service]\nEnvironment=AI_PROXY_DETECT=0")
    (units / "ai-proxy.service").write_text(unit)
    (units / "test.target").write_text(TARGET)
    namespaces = ["unshare", "-m", "-p", "-u", "-i", "-C", "--fork", "--kill-child", "sh", "-ec", SETUP]
    environment = {**os.environ, "UNITS": str(units), "container": "chroot"}
    with (tmp_path / "systemd.log").open("wb") as log:
        outer = subprocess.Popen(
            namespaces, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        running = Systemd(int(eventually(lambda: children.read_text().strip())))
        eventually(lambda: is_up(running))
        yield running
    finally:
        outer.kill()  # with it ends systemd, and with that all that runs in its namespace
        outer.wait()


def is_up(systemd: Systemd) -> bool:
    try:
        return "test.target" in systemd.ctl("list-units", "--no-legend", "test.target")
    except AssertionError:
        return False


def test_backends_survive_a_crash_of_the_proxy_and_end_with_the_unit(proxy: Proxy, systemd: Systemd) -> None:
    systemd.ctl("start", "ai-proxy")
    before = eventually(lambda: ready(proxy))
    crashed = int(systemd.ctl("show", "ai-proxy", "--property=MainPID", "--value"))

    systemd.ctl("kill", "--kill-whom=main", "--signal=SIGKILL", "ai-proxy")
    eventually(lambda: systemd.ctl("show", "ai-proxy", "--property=NRestarts", "--value") == "1")
    after = eventually(lambda: ready(proxy))
    restarted = int(systemd.ctl("show", "ai-proxy", "--property=MainPID", "--value"))
    systemd.ctl("stop", "ai-proxy")

    assert restarted != crashed
    assert after == before
    assert not backend_lives(systemd, before)


def ready(proxy: Proxy) -> str | None:
    """Return the pid of the backend, once it is ready."""
    try:
        view = proxy.service("kept")
    except OSError:
        return None
    return str(view["ref"]) if view.get("state") == "ready" else None


def backend_lives(systemd: Systemd, pid: str) -> bool:
    inside = ["nsenter", "-t", str(systemd.pid), "-m", "-p", "test", "-e", f"/proc/{pid}"]
    return subprocess.run(inside, timeout=60).returncode == 0
