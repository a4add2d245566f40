"""What the guard costs a request: python -m benchmarks.guard.

The data plane runs in this process, between transports that only count, so that nothing but Python is
measured. Each round asks both gateways in turn, with and without a guard; the least of many rounds counts,
since whatever else the machine does only adds to it.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from tests.rigs.admission import FakeAdmission

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities
from ai_proxy.core.keys import Grant
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.core.settings import Limits, SecuritySettings
from ai_proxy.gateway.guard import KeyGuard
from ai_proxy.gateway.http.client import ClientConnection
from ai_proxy.gateway.http.upstream import UpstreamConnection
from ai_proxy.gateway.listener import Gateway, Listener
from ai_proxy.gateway.routing.endpoints import OPENAI
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import open_store
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.tasks import Background
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import Security, open_security
from ai_proxy.telemetry.metrics import Metrics

ROUNDS, REQUESTS = 400, 250
BACKEND = Upstream("127.0.0.1", 1)
USAGE = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":12}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(USAGE),
    USAGE,
)
PROMPT = b'{"model": "svc", "messages": [{"role": "user", "content": "hello"}]}'
ROUTES = {"by model": b"/v1/chat/completions", "by path": b"/service/svc/v1/chat/completions"}
AMPLE = {"rpm": 10**9, "tpm": 10**9, "concurrency": 10**6}
"""Limits that are looked at and never reached."""
POLICY = {"allowlist": ["10.0.0.0/8"], "per_key": AMPLE, "per_ip": AMPLE}


class CountingTransport:
    """Takes what is written, and counts."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        self.writes = 0
        self._protocol = protocol
        protocol.connection_made(cast("asyncio.Transport", self))

    def write(self, data: bytes) -> None:  # noqa: ARG002 - a transport's signature
        """Count."""
        self.writes += 1

    def close(self) -> None:
        """End the connection."""
        self._protocol.connection_lost(None)

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def get_extra_info(self, name: str) -> object:
        """Return the address that clients come from."""
        return ("10.1.2.3", 40_000) if name == "peername" else None


def data_plane() -> Gateway:
    """Return a gateway with one service, whose connection is kept."""
    metrics = Metrics()
    metrics.state("svc", "ready")
    gateway = Gateway(FakeAdmission({"svc": BACKEND}), metrics, Limits(), BACKEND, Background())
    service = Service("svc", "generic", "generic", ExternalLaunch((BACKEND,)), "hash")
    gateway.publish([Offer(service, Abilities("Generic", TEXT_ENDPOINTS))])
    return gateway


def requester(gateway: Gateway, path: bytes, header: bytes) -> Callable[[], float]:
    """Return what makes a round of requests on one connection, and returns the seconds that one took."""
    backend = UpstreamConnection(gateway.shared.pools.of(BACKEND))
    client = ClientConnection(Listener(gateway, OPENAI))
    CountingTransport(backend)
    gateway.shared.pools.of(BACKEND).put(backend)
    transport = CountingTransport(client)
    lines = (
        *(b"POST %b HTTP/1.1" % path, b"host: localhost", b"content-type: application/json"),
        *(b"content-length: %d" % len(PROMPT), header, b"", PROMPT),
    )
    request = b"\r\n".join(lines)

    def round_trip() -> float:
        before, began = transport.writes, time.process_time()
        for _ in range(REQUESTS):
            client.data_received(request)
            backend.data_received(ANSWER)
        took = time.process_time() - began
        assert transport.writes == before + REQUESTS, "a request was not answered"  # noqa: S101 - it would be no measurement
        return took / REQUESTS

    return round_trip


async def measure(security: Security, path: bytes) -> tuple[float, float]:
    """Return the seconds of a request to a path without a guard and with one."""
    plain, _ = await security.keys.create(Grant("benchmark"))
    open_to_all, guarded = data_plane(), data_plane()
    guarded.protect(KeyGuard(security, SecuritySettings(), SystemClock(), exposed=True))
    without = requester(open_to_all, path, b"authorization: Bearer " + b"x" * len(plain.text))
    with_guard = requester(guarded, path, b"authorization: Bearer " + plain.text.encode())
    rounds = [(without(), with_guard()) for _ in range(ROUNDS)]
    for gateway in (open_to_all, guarded):
        await gateway.close()
    return min(one for one, _ in rounds), min(other for _, other in rounds)


async def main() -> None:
    """Measure with a key, then with a policy and limits as well, and print both."""
    gc.collect()
    gc.freeze()
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            open_store(file_url(folder)) as store,
            open_security(store, load_pepper(folder), clock) as security,
        ):
            for what, policy in (("key", {}), ("key, policy and limits", POLICY)):
                await security.policy.set(policy, "owner")
                for route, path in ROUTES.items():
                    without, with_guard = await measure(security, path)
                    print(
                        f"{route}, {what}: {(with_guard - without) * 1e6:+.2f} us (at most 3), "
                        f"{with_guard * 1e6:.2f} instead of {without * 1e6:.2f} us a request"
                    )


if __name__ == "__main__":
    asyncio.run(main())
