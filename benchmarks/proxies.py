"""How each contender is set up, started and told apart."""

import importlib.metadata
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.messages import KEY

PREFIX = "/service/bench"
OURS = "ai-proxy"
REFERENCE = "nginx"
DIRECT = "direct"
_HERE = Path(__file__).parent
_ENVIRONMENTS = _HERE.parent / ".bench"

_NGINX = """\
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 2048;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_read_timeout 300s;
        location /service/bench/ {{ proxy_pass http://engine/; }}
        location /v1/ {{ proxy_pass http://engine; }}
    }}
}}
"""
_HAPROXY = """\
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    option http-no-delay
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    http-request replace-path /service/bench(/.*) \\1
    default_backend engine
backend engine
    server engine 127.0.0.1:{engine} pool-max-conn 2048
"""
_AI_PROXY = """\
server: {{host: 127.0.0.1, port: {port}}}
services:
  bench:
    type: generic
    url: http://127.0.0.1:{engine}
"""
_LITELLM = """\
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
"""
_LITELLM_ENVIRONMENT = {
    "LITELLM_MASTER_KEY": KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "ERROR",
    # It takes a hundred chunks that look alike for a model gone mad, and cuts the stream.
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
}


class UnavailableError(Exception):
    """A contender cannot take part; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a contender is to run.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        engine: Port of the fake engine.
        folder: Its own, for its configuration and whatever it writes.
    """

    port: int
    engine: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """A contender ready to be started.

    Attributes:
        command: Program and arguments.
        version: As it calls itself.
        env: Variables beside PATH and those that keep it in its folder.
    """

    command: tuple[str, ...]
    version: str
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contender:
    """A proxy that can take part.

    Attributes:
        name: Its name in the table.
        prepare: Writes its configuration and says how to start it; raises `UnavailableError`.
        prefix: In front of every path.
        verbatim: Whether it passes answers on as they are.
        starts: How often its start is timed, once at least.
    """

    name: str
    prepare: Callable[[Setting], Recipe]
    prefix: str = PREFIX
    verbatim: bool = True
    starts: int = 3


def environment(setting: Setting, recipe: Recipe) -> dict[str, str]:
    """Return the whole environment of a contender: nothing of the user's, everything below its folder."""
    home = str(setting.folder)
    kept = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
    places = ("RUNTIME_DIR", "CONFIG_HOME", "DATA_HOME", "STATE_HOME", "CACHE_HOME")
    return kept | {f"XDG_{place}": home for place in places} | dict(recipe.env)


def _ai_proxy(setting: Setting) -> Recipe:
    config = _write(setting, "config.yaml", _AI_PROXY)
    program = Path(sys.executable).with_name("ai-proxy")
    if not program.exists():
        raise UnavailableError(f"{program} is not there; install the project into this environment")
    command = (str(program), "serve", "--config", str(config), "--port", str(setting.port))
    version = f"ai-proxy {importlib.metadata.version('ai-inference-proxy')}"
    env = {"AI_PROXY_DATA_DIR": str(setting.folder / "data")}
    recipe = Recipe(command, version, env)
    _make_store(program, environment(setting, recipe), setting.folder)
    return recipe


def _make_store(program: Path, env: Mapping[str, str], folder: Path) -> None:
    """Have the store made now, as it is once in its life, and not by the first start that is timed."""
    done = subprocess.run(
        [program, "api-keys", "list"], env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UnavailableError(f"its store cannot be made: {done.stderr.strip()}")


def _nginx(setting: Setting) -> Recipe:
    program = _program("nginx", "apt-get install nginx-light")
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    config = _write(setting, "nginx.conf", _NGINX, user=user)
    command = (program, "-p", str(setting.folder), "-c", str(config), "-e", "stderr")
    return Recipe(command, _first_line(program, "-v").removeprefix("nginx version: "), {})


def _haproxy(setting: Setting) -> Recipe:
    program = _program("haproxy", "apt-get install haproxy")
    config = _write(setting, "haproxy.cfg", _HAPROXY)
    return Recipe((program, "-db", "-f", str(config)), _first_line(program, "-v").rsplit(" - ")[0], {})


def _fastapi(setting: Setting) -> Recipe:
    python, versions = _python_environment("fastapi", "fastapi", "httpx", "uvicorn[standard]")
    app = ("--app-dir", str(_HERE), "fastapi_proxy:app")
    quiet = ("--no-access-log", "--log-level", "warning")
    command = (python, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(setting.port), *quiet, *app)
    engine = {"ENGINE_URL": f"http://127.0.0.1:{setting.engine}"}
    return Recipe(command, f"FastAPI {versions['fastapi']}, httpx {versions['httpx']}", engine)


def _litellm(setting: Setting) -> Recipe:
    python, versions = _python_environment("litellm", "litellm[proxy]")
    config = _write(setting, "litellm.yaml", _LITELLM)
    program = str(Path(python).with_name("litellm"))
    where = ("--host", "127.0.0.1", "--port", str(setting.port), "--num_workers", "1")
    version = f"LiteLLM {versions['litellm']}"
    return Recipe((program, "--config", str(config), *where), version, _LITELLM_ENVIRONMENT)


CONTENDERS = (
    Contender(OURS, _ai_proxy, starts=5),
    Contender(REFERENCE, _nginx, starts=5),
    Contender("haproxy", _haproxy),
    Contender("fastapi", _fastapi),
    Contender("litellm", _litellm, prefix="", verbatim=False, starts=1),
)
DEFAULT = (OURS, REFERENCE)


def _write(setting: Setting, name: str, text: str, **more: str) -> Path:
    path = setting.folder / name
    path.write_text(text.format(port=setting.port, engine=setting.engine, folder=setting.folder, **more))
    return path


def _program(name: str, install: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise UnavailableError(f"{name} is not installed: {install}")
    return found


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0]


def _python_environment(name: str, *packages: str) -> tuple[str, dict[str, str]]:
    """Make an environment below `.bench/` unless it is there; return its Python and what is installed."""
    home = _ENVIRONMENTS / name
    python = home / "bin/python"
    uv = (sys.executable, "-m", "uv") if shutil.which("uv") is None else ("uv",)
    if not (home / "complete").exists():
        _install(name, (*uv, "venv", "--clear", "--python", sys.executable, str(home)))
        _install(name, (*uv, "pip", "install", "--python", str(python), *packages))
        (home / "complete").touch()
    listing = subprocess.run(
        (*uv, "pip", "freeze", "--python", str(python)), capture_output=True, text=True, check=True
    )
    pairs = (line.split("==") for line in listing.stdout.splitlines() if "==" in line)
    return str(python), dict(pairs)


def _install(name: str, command: tuple[str, ...]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise UnavailableError(f"its environment .bench/{name} cannot be made: {reason}")
