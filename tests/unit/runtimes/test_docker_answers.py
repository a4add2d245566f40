"""Whatever an engine answers, it is read or refused: nothing else comes of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.runtimes.docker.access import Access, is_here, sharing_order
from ai_proxy.runtimes.docker.answers import Container, ContainerTop, Event, PullReport, Stats, SystemInfo
from ai_proxy.runtimes.docker.events import describe
from ai_proxy.runtimes.docker.images import Progress
from ai_proxy.runtimes.docker.spec import parse_handle
from ai_proxy.runtimes.docker.stats import machine_pids, parse_stats

TEXT = (
    st.sampled_from(["", "8080", "²", "running", "2025-01-01T00:00:00Z", "0001-01-01T00:00:00"]) | st.text()
)
NUMBERS = st.integers(-(2**63), 2**64) | st.sampled_from([0, 1, 2**62])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with any of these fields, some of which have a value of the wrong type."""
    odd = st.none() | NUMBERS | TEXT | st.lists(TEXT, max_size=1)
    return st.fixed_dictionaries({}, optional={name: value | odd for name, value in fields.items()})


LABELS = st.dictionaries(
    st.sampled_from(["ai-proxy.service", "ai-proxy.port", "ai-proxy.handle-version"]), TEXT, max_size=3
)
ENDPOINTS = st.dictionaries(TEXT, some(IPAddress=TEXT, Gateway=TEXT), max_size=2)
PORTS = st.dictionaries(st.just("8080/tcp"), st.lists(some(HostPort=TEXT), max_size=2), max_size=1)
CONTAINERS = st.builds(
    lambda state, labels, network: {
        "Id": "c1",
        "State": {"StartedAt": "2025-01-01T00:00:00Z", **state},
        "Config": {"Labels": {"ai-proxy.service": "x", "ai-proxy.port": "8080", **labels}},
        "NetworkSettings": network,
    },
    some(StartedAt=TEXT, Running=st.booleans(), Status=TEXT),
    LABELS,
    some(Networks=ENDPOINTS, Ports=PORTS),
)
CPU = some(cpu_usage=some(total_usage=NUMBERS), system_cpu_usage=NUMBERS, online_cpus=NUMBERS)
MEMORY = some(usage=NUMBERS, limit=NUMBERS, stats=st.dictionaries(st.sampled_from(["anon", "rss"]), NUMBERS))
STATS = some(
    cpu_stats=CPU,
    precpu_stats=CPU,
    memory_stats=MEMORY,
    networks=st.dictionaries(TEXT, some(rx_bytes=NUMBERS), max_size=2),
    pids_stats=some(current=NUMBERS),
)


def read[T](answer: object, kind: type[T]) -> T | None:
    """Read an answer as the API client does; None when it is refused."""
    try:
        return msgspec.json.decode(msgspec.json.encode(answer), type=kind)
    except ValueError:
        return None


@given(CONTAINERS)
def test_any_container_has_a_handle_or_none(answer: object) -> None:
    container = read(answer, Container)
    handle = parse_handle(container, Access()) if container is not None else None

    if handle is not None:
        assert 0 <= handle.upstreams[0].port <= 65535
        assert handle.started >= 0.0


@given(STATS)
def test_any_report_is_a_measurement_or_none(answer: object) -> None:
    report = read(answer, Stats)
    usage = parse_stats(report, at=1.0) if report is not None else None

    assert usage is None or usage.memory >= 0


@given(some(Action=TEXT, timeNano=NUMBERS, Actor=some(Attributes=LABELS)))
def test_any_event_is_described_or_not(answer: object) -> None:
    event = read(answer, Event)

    assert event is None or describe(event) is None or event.action


@given(some(status=TEXT, id=TEXT, progressDetail=some(current=NUMBERS, total=NUMBERS), error=TEXT))
def test_any_report_of_a_pull_is_progress(answer: object) -> None:
    report, progress = read(answer, PullReport), Progress()

    if report is not None:
        progress.take(report)
    assert str(progress).startswith("pulling image")


@given(some(Titles=st.lists(TEXT | st.just("PID")), Processes=st.lists(st.lists(TEXT, max_size=3))))
def test_any_list_of_processes_has_pids(answer: object) -> None:
    top = read(answer, ContainerTop)

    assert top is None or all(pid >= 0 for pid in machine_pids(top))


@given(some(Name=TEXT, KernelVersion=TEXT, MemTotal=NUMBERS, SecurityOptions=st.lists(TEXT)), ENDPOINTS)
def test_any_engine_is_here_or_elsewhere(answer: object, networks: dict[str, object]) -> None:
    info = read(answer, SystemInfo)

    assert info is None or is_here(info, "box", "6.1", 8) in (True, False)
    assert set(sharing_order(networks, "mine")) <= set(networks)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "yesterday", ""])
def test_a_time_without_a_zone_is_refused(moment: str) -> None:
    answer = {"Id": "c1", "Config": {}, "State": {"StartedAt": moment}}

    assert read(answer, Container) is None
