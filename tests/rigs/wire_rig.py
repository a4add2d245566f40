"""The whole data plane on loopback, between clients and backends that a test plays."""

import asyncio
import gc
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.rigs.admission import FakeAdmission
from tests.rigs.raw_backend import RawBackend, all_accepted
from tests.rigs.raw_http import PATIENCE, Message, RawClient
from tests.rigs.recorder import CollectingRecorder

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.http.client import ClientConnection
from ai_proxy.gateway.listener import Gateway
from ai_proxy.platform.tasks import Background

SWEEP = 0.02
"""Seconds between two looks for overdue connections."""
HEARTBEAT = 0.05
"""Seconds after which the client of a stream hears of a load."""


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nothing tells: the inner state of the gateway's connections."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def exchange_of(connection: ClientConnection) -> Exchange:
    """Return what is being answered on a connection."""
    assert isinstance(connection.current, Exchange)
    return connection.current


class WireRig:
    """A gateway with its surroundings.

    Attributes:
        backends: By service.
        management: Stands in for the management app.
        ollama_port: Of the listener in the place of Ollama; 0 where a test has none.
        problems: What reached the event loop's exception handler; anything fails the test.
    """

    def __init__(
        self, gateway: Gateway, admission: FakeAdmission, recorder: CollectingRecorder, management: RawBackend
    ) -> None:
        self.gateway = gateway
        self.admission = admission
        self.recorder = recorder
        self.management = management
        self.backends: dict[str, RawBackend] = {}
        self.port = self.ollama_port = 0
        self.problems: list[dict[str, object]] = []
        self._clients: list[RawClient] = []

    @property
    def connections(self) -> list[ClientConnection]:
        """The gateway's side of its clients' connections."""
        return self.gateway.connections

    @property
    def backend(self) -> RawBackend:
        """The backend of the service `svc`."""
        return self.backends["svc"]

    async def client(self, port: int = 0, *, receive_buffer: int = 0) -> RawClient:
        """Connect a client, to another port if one is given; it is closed when the test ends."""
        client = await RawClient.connect(port or self.port, receive_buffer=receive_buffer)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes) -> Message:
        """Send a request on a connection of its own and read its response."""
        client = await self.client()
        return await client.ask(request)

    async def close(self) -> None:
        """End the clients, then the gateway, then the backends."""
        for client in self._clients:
            client.writer.transport.abort()
        await all_accepted()
        await self.gateway.close()
        for backend in (*self.backends.values(), self.management):
            await backend.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def wire_rig(
    limits: Limits | None = None,
    services: Sequence[str] = ("svc",),
    *,
    response_timeout: float = 60.0,
    stream_idle_timeout: float = 60.0,
    base_path: str = "",
) -> AsyncIterator[WireRig]:
    """Run a gateway; afterwards no lease may be held and no error may have reached the event loop."""
    problems: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    backends = {service_id: RawBackend() for service_id in services}
    upstreams: dict[str, Upstream] = {}
    for service_id, backend in backends.items():
        listening = await backend.listen()
        upstreams[service_id] = Upstream(listening.host, listening.port, base_path=base_path)
    management = RawBackend()
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        control = await management.listen_unix(str(Path(folder) / "m.sock"))
        admission, recorder = FakeAdmission(upstreams), CollectingRecorder()
        gateway = Gateway(
            admission,
            recorder,
            limits or Limits(shutdown_timeout=0.5),
            control,
            Background(),
            SWEEP,
            HEARTBEAT,
        )
        gateway.publish(
            Offer(
                Service(
                    service_id,
                    "generic",
                    "generic",
                    ExternalLaunch((upstream,)),
                    "hash",
                    response_timeout=response_timeout,
                    stream_idle_timeout=stream_idle_timeout,
                ),
                Abilities("any HTTP server"),
            )
            for service_id, upstream in upstreams.items()
        )
        rig = WireRig(gateway, admission, recorder, management)
        rig.backends, rig.problems = backends, problems
        rig.port = await gateway.listen("127.0.0.1", 0)
        await gateway.accept()
        try:
            yield rig
        finally:
            await rig.close()
    gc.collect()  # an error that a lost task kept for itself reaches the handler only now
    assert not problems, problems
    held = {service_id: count for service_id, count in admission.in_flight.items() if count}
    assert not held, f"leases are still held: {held}"
