"""All that chaos is done to: a proxy, its Docker engine, its services."""

import http.client
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
from tests.conftest import IMAGE
from tests.e2e.chaos.comparison import Container
from tests.e2e.conftest import Answer, Proxy, eventually, fake
from tests.e2e.test_docker import container
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.data import DEMO_SENTENCE
from ai_proxy.testing.fake_engine import Behaviour

WORDS = 40
PACED = ["--words", str(WORDS), "--delay", "0.02"]
"""Streams of 0.8 s, so that most of what happens finds some of them under way."""
COMMON: dict[str, Any] = {
    "start_timeout": "15s",
    "stop_grace": "2s",
    "drain_timeout": "3s",
    "response_timeout": "8s",
    "stream_idle_timeout": "8s",
}
MANAGEMENT_LIMIT = 5.0
"""Seconds within which management answers, whatever the engine does, beyond what it was told to wait."""
LINE = 600
"""Longest text shown of a step or a fault."""
SLACK = 20.0
"""Seconds that a busy machine may take beyond a limit."""

GUEST = "guest"
SERVICES = ("asked", "steady", "paced", "native", GUEST)
CONTAINERS = ("asked", "steady", "paced", GUEST)


def declare(service: str, variant: int) -> dict[str, Any]:
    """Return the declaration of a service; another variant needs another container or process."""
    context = ("-c", str(512 + 64 * variant))
    match service:
        case "asked":
            return container(*context, **COMMON | {"idle_timeout": "1s"})
        case "steady":
            return container(*context, **COMMON | {"start": "always"})
        case "paced":
            listen = ["--host", "0.0.0.0", "--port", "8080", "--model", f"v{variant}"]
            return {
                "type": "generic",
                "image": IMAGE,
                "port": 8080,
                "docker": {"pull": "never"},
                "health_path": "/health",
                "command": ["python3", "-m", "ai_proxy.testing.fake_engine", *listen, *PACED],
                **COMMON,
            }
        case "native":
            return fake(Behaviour.OK, *PACED, "--model", f"v{variant}", **COMMON)
        case _:
            return container(*context, **COMMON)


def sentence(service: str) -> str:
    """Return what a service answers, whatever it is asked."""
    if service in ("paced", "native"):
        return " ".join(f"word-{number}" for number in range(1, WORDS + 1))
    return DEMO_SENTENCE


@dataclass
class House:
    """The proxy and the engine, and what has been done to them.

    Attributes:
        variants: The declared services, each with its variant.
        serving: Whether the proxy should answer now.
        deaths: How often the proxy has ended.
        faults: What must not have happened.
    """

    proxy: Proxy
    engine: DockerEngine
    variants: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVICES, 0))
    serving: bool = False
    deaths: int = 0
    engine_lives: bool = True
    faults: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Tell what is done, and when; pytest shows it when the test fails."""
        print(f"{time.monotonic() - self.began:8.3f} {text[:LINE]}", flush=True)  # noqa: T201

    def fault(self, text: str) -> None:
        """Note what must not have happened."""
        self.say(f"FAULT: {text}")
        self.faults.append(text[:LINE])

    # The proxy.

    def open(self) -> None:
        self.write()
        self.proxy.serve()
        self.serving = True

    def leave(self) -> None:
        """Count on no answers from now on."""
        self.serving = False
        self.deaths += 1

    def kill_proxy(self) -> None:
        self.leave()
        self.proxy.kill()

    def end_proxy(self) -> None:
        self.leave()
        if code := self.proxy.end():
            self.fault(f"the proxy ended with exit code {code}")

    def write(self) -> None:
        """Write the configuration as it is to be."""
        self.proxy.configure(**{name: declare(name, variant) for name, variant in self.variants.items()})

    def reload(self) -> None:
        """Write the configuration and have it read, by a signal or, every other time, through the API."""
        self.write()
        if not self.serving:
            return
        if sum(self.variants.values()) % 2:
            assert self.proxy.process is not None
            self.proxy.process.send_signal(signal.SIGHUP)
        else:
            self.manage("/api/v1/config/reload", limit=30.0)

    def order(self, service: str, what: str, wait: float = 0.0) -> Answer | None:
        """Give an order about a service through the API."""
        return self.manage(f"/api/v1/service/{service}/{what}?wait={wait:.1f}", wait + MANAGEMENT_LIMIT)

    def manage(self, path: str, limit: float) -> Answer | None:
        """Have something done through the API; None when the proxy is away."""
        if not self.serving:
            return None
        began = time.monotonic()
        try:
            answer = self.proxy.ask(path, method="POST", wait=60)
        except (OSError, http.client.HTTPException) as error:
            self.fault(f"{path}: {error!r} from a proxy that lives")
            return None
        took = time.monotonic() - began
        if took > limit + SLACK:
            self.fault(f"{path}: answered after {took:.1f} s")
        if answer.status not in (200, 202) and answer.headers["X-AI-Proxy-Error"] in (None, "internal"):
            self.fault(f"{path}: {answer.status} {answer.body!r}")
        return answer

    def views(self) -> dict[str, Any]:
        """Return every service as the proxy sees it."""
        services = self.proxy.ask("/api/v1/services").json["services"]
        return {view["id"]: view for view in services}

    # The engine.

    def kill_engine(self) -> None:
        self.engine_lives = False
        self.engine.kill()

    def start_engine(self, *, live_restore: bool) -> None:
        """Start it; without `live_restore` it ends the containers that still run."""
        self.engine.start(*(["--live-restore"] if live_restore else []))
        self.engine_lives = True

    def docker(self, verb: str, service: str) -> str:
        """Do something to a service's container; say what came of it."""
        if not self.engine_lives:
            return "the engine is away"
        done = self.engine.docker(verb, f"ai-proxy-{service}", check=False)
        return "done" if done.returncode == 0 else done.stderr.strip()

    def kill_engine_process(self, service: str) -> str:
        """Kill what the container's init looks after, as the kernel does when memory runs out."""
        if not self.engine_lives:
            return "the engine is away"
        names = ("inspect", "--format", "{{.State.Pid}}", f"ai-proxy-{service}")
        pid = int(self.engine.docker(*names, check=False).stdout.strip() or 0)
        try:
            children = psutil.Process(pid).children() if pid else []
        except psutil.Error:
            children = []
        for child in children:
            try:
                os.kill(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return f"{len(children)} killed"

    def containers(self) -> list[Container]:
        """Return every container of ours, as the engine sees it."""
        listed = self.engine.docker(
            "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=ai-proxy.owner"
        )
        inspected = (self.engine.docker("inspect", ref, check=False).stdout for ref in listed.stdout.split())
        return [Container.parse(text) for text in inspected if text.strip() not in ("", "[]")]

    # Afterwards.

    def calm(self) -> None:
        """Put right what operations have left broken."""
        if not self.engine_lives:
            self.start_engine(live_restore=True)
        for service in CONTAINERS:
            self.docker("unpause", service)
        if not self.serving:
            self.open()

    def clean_up(self) -> None:
        """Leave nothing behind, and the engine as it was."""
        self.serving = False
        self.proxy.clean_up()
        self.engine.kill()
        self.engine.start()
        for found in eventually(lambda: (self.containers(),))[0]:
            self.engine.docker("rm", "--force", found.ref)
