from tests.rigs.recorder import NullRecorder

from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Probe
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import ExternalLaunch, Lease, Outcome, RuntimeKind, Service, Upstream
from ai_proxy.platform.tasks import spawn
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.testing.fakes import FakeClock, FakeProbeEngine

ONE, TWO, THREE = (Upstream("127.0.0.1", port) for port in (1001, 1002, 1003))


class Cluster(FakeProbeEngine):
    """An engine whose replicas are up or down."""

    def __init__(self) -> None:
        super().__init__("fake")
        self.down: set[Upstream] = set()

    async def probe(self, service: Service, upstream: Upstream) -> Probe:
        ready = upstream not in self.down
        return Probe(ready, "ready" if ready else "connection refused")


class Stage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = Cluster()
        self.plane = ControlPlane(
            self.clock, {RuntimeKind.EXTERNAL: ExternalRuntime()}, {"fake": self.engine}, NullRecorder()
        )

    async def open(self) -> None:
        launch = ExternalLaunch((ONE, TWO, THREE))
        await self.plane.open([Service("svc", "generic", "fake", launch, "1")])
        admitted = spawn(self.plane.scheduler.admit(Ask("svc")), "first request")
        await self.clock.advance(1)
        self.plane.scheduler.release(await admitted, Outcome.OK)

    def lease(self) -> Lease:
        lease = self.plane.scheduler.acquire("svc")
        assert lease is not None
        return lease

    async def close(self) -> None:
        closing = spawn(self.plane.close(), "close")
        await self.clock.advance(60)
        await closing


async def test_requests_spread_over_the_replicas_least_busy_first() -> None:
    stage = Stage()
    await stage.open()

    first = [stage.lease() for _ in range(3)]
    stage.plane.scheduler.release(first[1], Outcome.OK)
    fourth = stage.lease()

    assert {lease.upstream for lease in first} == {ONE, TWO, THREE}
    assert fourth.upstream == first[1].upstream
    await stage.close()


async def test_one_that_fails_is_left_alone_until_its_circuit_is_half_open() -> None:
    stage = Stage()
    await stage.open()
    failing = stage.lease()
    stage.plane.scheduler.release(failing, Outcome.CONNECT_FAILED)

    during = [stage.lease() for _ in range(6)]
    for lease in during:
        stage.plane.scheduler.release(lease, Outcome.OK)
    await stage.clock.advance(1.1)
    after = [stage.lease() for _ in range(3)]

    assert failing.upstream not in {lease.upstream for lease in during}
    assert failing.upstream in {lease.upstream for lease in after}
    await stage.close()


async def test_a_request_moves_to_another_replica() -> None:
    stage = Stage()
    await stage.open()
    lease = stage.lease()
    failed = lease.upstream

    moved = stage.plane.scheduler.move(lease, Outcome.CONNECT_FAILED)

    assert moved
    assert lease.upstream != failed
    assert stage.plane.service("svc").in_flight == 1
    stage.plane.scheduler.release(lease, Outcome.OK)
    assert stage.plane.service("svc").in_flight == 0
    await stage.close()


async def test_a_request_that_has_tried_every_replica_moves_no_more() -> None:
    stage = Stage()
    await stage.open()
    lease = stage.lease()

    moves = [stage.plane.scheduler.move(lease, Outcome.CONNECT_FAILED) for _ in range(3)]

    assert moves == [True, True, False]
    stage.plane.scheduler.release(lease, Outcome.CONNECT_FAILED)
    assert stage.plane.service("svc").in_flight == 0
    await stage.close()


async def test_when_all_circuits_are_open_the_one_half_open_first_is_used() -> None:
    stage = Stage()
    await stage.open()
    for seconds in (30.0, 10.0, 20.0):
        lease = stage.lease()
        stage.plane.scheduler.move(lease, Outcome.OVERLOADED, retry_after=seconds)
        stage.plane.scheduler.release(lease, Outcome.CLIENT_GONE)

    assert stage.plane.scheduler.acquire("svc") is not None
    await stage.close()


async def test_one_replica_that_is_up_makes_the_service_ready_and_the_others_are_left_alone() -> None:
    stage = Stage()
    stage.engine.down = {ONE, THREE}
    await stage.open()

    upstreams = {stage.lease().upstream for _ in range(4)}

    assert stage.plane.service("svc").state is State.READY
    assert upstreams == {TWO}
    await stage.close()


async def test_health_checks_open_and_close_the_circuit_of_a_replica() -> None:
    stage = Stage()
    await stage.open()

    stage.engine.down = {ONE}
    await stage.clock.advance(10.5)
    during = {stage.lease().upstream for _ in range(4)}
    stage.engine.down = set()
    await stage.clock.advance(10)
    after = {stage.lease().upstream for _ in range(6)}

    assert during == {TWO, THREE}
    assert ONE in after
    await stage.close()


async def test_a_service_all_of_whose_replicas_are_down_fails_and_comes_back() -> None:
    stage = Stage()
    await stage.open()

    stage.engine.down = {ONE, TWO, THREE}
    await stage.clock.advance(35)
    down = stage.plane.service("svc")
    stage.engine.down = set()
    await stage.clock.advance(1)
    admitted = spawn(stage.plane.scheduler.admit(Ask("svc")), "request")
    await stage.clock.advance(1)

    assert down.state is State.FAILED
    assert "connection refused" in down.failure
    stage.plane.scheduler.release(await admitted, Outcome.OK)
    await stage.close()
