"""Answers of the management API that are no facts of the control plane, and examples for all of them."""

from enum import StrEnum

from pydantic import BaseModel, Field

from ai_proxy.control.views import ReloadReport, ServiceView
from ai_proxy.core.lifecycle import State
from ai_proxy.core.logring import LogLine
from ai_proxy.core.service import ResourceUsage


class Services(BaseModel):
    """The state of every service."""

    services: list[ServiceView] = Field(description="In the order of the configuration.")


class Message(BaseModel):
    """The result of starting or stopping something."""

    message: str = Field(description="In words.", examples=["Container 'llama3' starting"])


class ContainerStatus(StrEnum):
    """State of a service's container or process, in the terms of container tools."""

    RUNNING = "running"
    EXITED = "exited"
    STARTING = "starting"
    STOPPING = "stopping"
    NOT_FOUND = "not_found"
    ERROR = "error"


class Container(BaseModel):
    """The container or process of a service."""

    service_id: str = Field(description="The service.")
    status: ContainerStatus = Field(description="Its state; `not_found`: it has never run.")
    runtime: str = Field(description="The runtime of the service.")
    ref: str | None = Field(
        description="Its id in the runtime, such as a pid or a container id; null when nothing runs."
    )
    upstreams: list[str] = Field(description="Its addresses while it runs.")
    exit_code: int | None = Field(description="Exit code of the last unexpected exit; null when unknown.")
    detail: str = Field(description="Why it is in this state.")
    stats: ResourceUsage | None = Field(description="Resource usage; null when unknown.")


_STATUS = {
    State.STARTING: ContainerStatus.STARTING,
    State.LOADING: ContainerStatus.STARTING,
    State.READY: ContainerStatus.RUNNING,
    State.DRAINING: ContainerStatus.RUNNING,
    State.STOPPING: ContainerStatus.STOPPING,
    State.STOPPED: ContainerStatus.EXITED,
    State.FAILING: ContainerStatus.ERROR,
    State.FAILED: ContainerStatus.ERROR,
    State.UNKNOWN: ContainerStatus.ERROR,
}


def container_status(state: State, starts: int) -> ContainerStatus:
    """Return the state of a service in container terms.

    Args:
        state: Of the service.
        starts: How often the service was started.

    >>> container_status(State.LOADING, starts=1)
    <ContainerStatus.STARTING: 'starting'>
    >>> container_status(State.STOPPED, starts=0), container_status(State.STOPPED, starts=1)
    (<ContainerStatus.NOT_FOUND: 'not_found'>, <ContainerStatus.EXITED: 'exited'>)
    """
    if state is State.STOPPED and starts == 0:
        return ContainerStatus.NOT_FOUND
    return _STATUS[state]


def container(view: ServiceView) -> Container:
    """Return the container or process of a service."""
    return Container(
        service_id=view.id,
        status=container_status(view.state, view.starts),
        runtime=view.runtime,
        ref=view.ref,
        upstreams=list(view.upstreams),
        exit_code=view.exit_code,
        detail=view.failure or view.reason,
        stats=view.stats,
    )


class Logs(BaseModel):
    """The last lines of a service's output."""

    service_id: str = Field(description="The service.")
    lines: list[LogLine] = Field(description="Oldest first.")


class Health(BaseModel):
    """The proxy is alive."""

    status: str = Field(description="Always `ok`.", examples=["ok"])
    version: str = Field(description="Version of the proxy.", examples=["1.2.3"])


class ServerFacts(BaseModel):
    """The proxy itself."""

    version: str = Field(description="Version of the proxy.", examples=["1.2.3"])
    url: str = Field(description="Where clients reach it.", examples=["http://127.0.0.1:11000"])
    ollama_url: str | None = Field(
        description="Where clients reach its Ollama API; null without one.",
        examples=["http://127.0.0.1:11434"],
    )


class RestartedTask(BaseModel):
    """Background work of the proxy that failed and was restarted; the log says why."""

    task: str = Field(description="Its name, also in metrics and in the log.")
    count: int = Field(description="How often it was restarted since the start of the proxy.")
    at: float = Field(description="When it failed last, in seconds since the epoch.")
    waiting: bool = Field(description="Whether it waits for its restart, so that it does not run now.")


class Readiness(BaseModel):
    """Whether the proxy serves everything that it should."""

    ready: bool = Field(description="Whether no service is awaited, and no background work waits.")
    restarted: list[RestartedTask] = Field(
        description="Background work that had to be restarted; normally empty."
    )
    waiting_for: list[str] = Field(
        description="Services with `start: always` that are not ready, except those stopped by hand."
    )


class Reloaded(BaseModel):
    """Ids of the services that a reload of the configuration changed."""

    added: tuple[str, ...] = Field(description="New in the configuration.")
    changed: tuple[str, ...] = Field(description="`restarted` and `updated` together.")
    removed: tuple[str, ...] = Field(description="No longer in the configuration; stopped.")
    restarted: tuple[str, ...] = Field(description="Changed in settings that need a restart of the service.")
    updated: tuple[str, ...] = Field(description="Changed in settings that apply without a restart.")
    unchanged: tuple[str, ...] = Field(description="Unchanged.")
    needs_restart: tuple[str, ...] = Field(
        description="Changed settings of the proxy that take effect when the proxy is restarted."
    )


def reloaded(report: ReloadReport) -> Reloaded:
    """Return the answer to a reload."""
    return Reloaded(
        added=report.added,
        changed=tuple(sorted((*report.restarted, *report.updated))),
        removed=report.removed,
        restarted=report.restarted,
        updated=report.updated,
        unchanged=report.unchanged,
        needs_restart=report.needs_restart,
    )


EXAMPLES: dict[str, object] = {
    "ServiceView": {
        "id": "llama3",
        "type": "llama-cpp-server",
        "engine": "llamacpp",
        "runtime": "process",
        "start": "on_demand",
        "state": "ready",
        "reason": "answers",
        "since": 1700000000.0,
        "held": False,
        "models": ["llama3"],
        "upstreams": ["http://127.0.0.1:41234"],
        "ref": "4711",
        "in_flight": 1,
        "waiting": 0,
        "starts": 1,
        "failures": 0,
        "failure": "",
        "exit_code": None,
        "log_tail": [],
        "retry_in": 0.0,
        "load_time": 4.2,
        "idle_stop_in": 600.0,
    },
    "Container": {
        "service_id": "llama3",
        "status": "running",
        "runtime": "process",
        "ref": "4711",
        "upstreams": ["http://127.0.0.1:41234"],
        "exit_code": None,
        "detail": "answers",
        "stats": {
            "at": 1700000000.0,
            "cpu_percent": 87.5,
            "memory": 3500000000,
            "memory_rss": 900000000,
            "memory_limit": 16000000000,
            "network_received": 52000,
            "network_sent": 310000,
            "pids": 9,
        },
    },
    "ModelView": {
        "name": "llama3",
        "service_id": "llama3",
        "engine": "llamacpp",
        "state": "ready",
        "target": "/models/llama3.gguf",
        "context_length": 8192,
        "kind": "chat",
        "since": 1700000000.0,
        "names": ["llama3", "llama3//models/llama3.gguf"],
    },
    "OpenAIModel": {
        "id": "llama3",
        "object": "model",
        "created": 1700000000,
        "owned_by": "llamacpp",
        "ai_proxy": {
            "service": "llama3",
            "engine": "llamacpp",
            "state": "ready",
            "context_length": 8192,
            "target": "/models/llama3.gguf",
        },
    },
    "ApiErrorBody": {
        "error": {
            "message": "there is no model 'lama3'; did you mean 'llama3'?",
            "type": "invalid_request_error",
            "code": "model_not_found",
            "param": None,
            "request_id": "5f0c1d3e",
        }
    },
    "LiveRequest": {
        "request_id": "5f0c1d3e",
        "endpoint": "/v1/chat/completions",
        "model": "llama3",
        "service_id": "llama3",
        "state": "streaming",
        "started": 1700000000.0,
        "seconds": 2.5,
        "sent": 5120,
    },
    "FinishedRequest": {
        "request_id": "1b2c3d4e",
        "endpoint": "/v1/chat/completions",
        "model": "llama3",
        "service_id": "llama3",
        "engine": "llamacpp",
        "streamed": True,
        "status": 200,
        "error": "",
        "started": 1700000000.0,
        "seconds": 4.1,
        "waited": 1.2,
        "loaded": True,
        "time_to_first_token": 1.4,
        "tokens_in": 21,
        "tokens_out": 190,
        "tokens_per_second": 70.0,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    },
    "Detection": {
        "engine": "ollama",
        "title": "Ollama",
        "state": "RunningHealthy",
        "address": "http://127.0.0.1:11434",
        "detail": "lists 1 model",
        "version": "0.32.0",
        "models": ["llama3:8b"],
        "latency_ms": 2.5,
        "program": "/usr/local/bin/ollama",
        "at": 1700000000.0,
    },
    "NewKey": {
        "label": "laptop",
        "scopes": ["inference"],
        "models": ["llama*"],
        "expires_in": 2592000,
        "rpm": 60,
        "concurrency": 4,
    },
    "KeyFacts": {
        "id": "0123456789ab",
        "label": "laptop",
        "state": "good",
        "scopes": ["inference"],
        "models": ["llama*"],
        "rpm": 60,
        "burst": None,
        "tpm": None,
        "concurrency": 4,
        "created": 1700000000.0,
        "expires": 1702592000.0,
        "revoked": None,
        "rotated_from": "",
        "last_used": None,
    },
    "PolicyDocument": {
        "allowlist": ["10.0.0.0/8", "192.0.2.7"],
        "cors": {"origins": ["https://chat.example.com"]},
        "per_key": {"rpm": 600, "tpm": 100000},
        "per_ip": {"rpm": 1200},
        "trusted_proxies": ["127.0.0.1"],
        "max_request_mb": 100,
    },
    "AuditEntry": {
        "at": 1700000000.0,
        "who": "0123456789ab",
        "what": "service.stop llama3",
        "where_from": "192.0.2.7",
        "result": "ok",
        "detail": "",
        "count": 1,
        "seq": 7,
    },
    "Setting": {
        "name": "engine.cache_ttl",
        "value": 60.0,
        "otherwise": 300.0,
        "made": True,
        "kind": "duration",
        "range": "a duration from 1s to 30d",
        "description": "How long what was found out about an engine holds.",
    },
    "Problem": {
        "type": "about:blank",
        "title": "Unknown service",
        "status": 404,
        "detail": "no service 'lama3' is configured; did you mean 'llama3'?",
        "code": "unknown_service",
        "request_id": "5f0c1d3e",
    },
}
"""Examples for the documentation, by name of the schema."""
