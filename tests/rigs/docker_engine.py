"""A private Docker engine for tests, which leaves the machine's own one alone.

It has a bridge and a cgroup of its own: its containers reach each other, can be reached, and have no way out.
It may be killed, frozen and started again at any moment. Linux, as root.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

READY = 60.0
"""Longest wait, in seconds, for the engine to answer or to end."""

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 2 * 1024**3
"""Bytes that must be free in memory for an engine to have its files there, where it waits for no disk."""

NEEDED = ("dockerd", "containerd", "docker", "ip", "iptables", "umount")


def reason_for_none() -> str | None:
    """Say why there can be no private engine here; None when there can."""
    if os.geteuid() != 0:
        return "a private Docker engine needs root"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"a private Docker engine needs {', '.join(missing)} (Debian: docker.io iproute2 iptables)"
    return None


class DockerEngine:
    """A dockerd over a folder of its own.

    Attributes:
        host: For `DOCKER_HOST`.
        address: Of this machine in the network of its containers.
        log: The file it logs to.
    """

    def __init__(self, folder: Path) -> None:
        self.host = f"unix://{folder / 'docker.sock'}"
        self.log = folder / "log"
        self._folder = folder
        number = _make_bridge()
        self._name = _name(number)
        self.address = f"10.213.{number}.1"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<DockerEngine {self.host}>"

    def start(self, *options: str) -> None:
        """Start it, with further options of dockerd, and wait until it answers."""
        if self._process is None:
            _run("ip", "addr", "add", f"{self.address}/24", "dev", self._name)
            _run("ip", "link", "set", self._name, "up")
            _run("iptables", "--wait", "--insert", "FORWARD", *self._let_through())
        for stale in ("pid", "run/containerd/containerd.pid"):  # by now it may be the pid of somebody else
            (self._folder / stale).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _eventually(self._answers, f"dockerd does not answer; see {self.log}")

    def _command(self) -> list[str]:
        return [
            "dockerd",
            f"--data-root={self._folder / 'data'}",
            f"--exec-root={self._folder / 'run'}",
            f"--pidfile={self._folder / 'pid'}",
            f"--host={self.host}",
            f"--bridge={self._name}",
            f"--cgroup-parent=/{self._name}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--shutdown-timeout=2",
        ]

    def _let_through(self) -> tuple[str, ...]:
        """Return the rule for frames between its containers, which a machine with Docker on it drops."""
        return ("--in-interface", self._name, "--out-interface", self._name, "--jump", "ACCEPT")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        return self.docker("version", check=False).returncode == 0

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the docker client against it."""
        environment = {**os.environ, "DOCKER_HOST": self.host}
        return subprocess.run(
            ["docker", *words], env=environment, capture_output=True, text=True, timeout=60, check=check
        )

    def containers(self) -> list[str]:
        """Return the names of all containers, running or not."""
        return self.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()

    def inspect(self, container: str) -> dict[str, object]:
        """Return what it knows of a container."""
        (facts,) = json.loads(self.docker("inspect", container).stdout)
        assert isinstance(facts, dict)
        return facts

    def kill(self) -> None:
        """End it without a chance to clean up; its containers run on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as systemd would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(READY)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Make it hang: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it with all it holds: containers, mounts, bridges, files."""
        if self._process is not None and self._process.poll() is None and self._answers():
            if names := self.containers():
                self.docker("rm", "--force", "--volumes", *names)
            self.docker("network", "prune", "--force")
        self.stop()
        _eventually(lambda: not self._left_behind(), "processes of a private Docker engine do not end")
        _run("iptables", "--wait", "--delete", "FORWARD", *self._let_through(), check=False)
        for interface in (*self._interfaces(), self._name):
            _run("ip", "link", "delete", interface, check=False)
        for mount in reversed(self._mounts()):
            _run("umount", "--lazy", mount, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _left_behind(self) -> bool:
        """Tell whether something of it still runs, containers included, and end it."""
        found = False
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = os.fsencode(self._folder) in (entry / "cmdline").read_bytes()
                if ours or f"/{self._name}/" in (entry / "cgroup").read_text():
                    os.kill(int(entry.name), signal.SIGKILL)
                    found = True
        return found

    def _interfaces(self) -> list[str]:
        """Return our ends of the cables to containers, which an engine that was killed leaves plugged in."""
        return [path.name for path in Path("/sys/class/net", self._name, "brif").glob("*")]

    def _mounts(self) -> list[str]:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self._folder}/")]


@contextmanager
def private_engine() -> Iterator[DockerEngine]:
    """Run an engine for the time of the context; nothing of it is left."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM
    # A short name: it holds Unix sockets.
    folder = Path(tempfile.mkdtemp(prefix="aip-docker-", dir=MEMORY if in_memory else None))
    engine = DockerEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


def _make_bridge() -> int:
    """Make a network that containers are in, on addresses few would use; return its number.

    Without a hardware address of its own, a bridge has that of one of its ports: it changes when a
    container ends, and the others go on sending to the old one until they ask again.

    Raises:
        RuntimeError: 256 engines run here, or have left their bridges behind.
    """
    for number in range(256):
        added = (
            "ip",
            "link",
            "add",
            _name(number),
            "address",
            f"02:61:69:70:00:{number:02x}",
            "type",
            "bridge",
        )
        if _run(*added, check=False).returncode == 0:  # there is none of that name
            return number
    raise RuntimeError("no bridge could be made: see `ip link`")


def _name(number: int) -> str:
    """Name a bridge, and the cgroup that belongs to it."""
    return f"aip-docker-{number}"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, check=check, capture_output=True)


def _eventually(look: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + READY
    while not look():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
