"""Reports as engines send them, shortened: 20.10 with control groups v1, 27 with v2."""

from typing import Any

import msgspec

from ai_proxy.core.service import ResourceUsage
from ai_proxy.runtimes.docker.answers import Stats
from ai_proxy.runtimes.docker.stats import parse_stats

V1: dict[str, Any] = {
    "read": "2026-11-21T00:20:02.1Z",
    "pids_stats": {"current": 13, "limit": 28000},
    "cpu_stats": {
        "cpu_usage": {"total_usage": 1_500_000_000, "percpu_usage": [700_000_000, 800_000_000]},
        "system_cpu_usage": 102_000_000_000,
        "online_cpus": 2,
    },
    "precpu_stats": {
        "cpu_usage": {"total_usage": 1_000_000_000, "percpu_usage": [500_000_000, 500_000_000]},
        "system_cpu_usage": 100_000_000_000,
        "online_cpus": 2,
    },
    "memory_stats": {
        "usage": 50_000_000,
        "max_usage": 60_000_000,
        "stats": {"inactive_file": 1, "rss": 1, "total_inactive_file": 9_000_000, "total_rss": 35_000_000},
        "limit": 536_870_912,
    },
    "networks": {"eth0": {"rx_bytes": 1270, "tx_bytes": 497}, "eth1": {"rx_bytes": 30, "tx_bytes": 3}},
}

V2: dict[str, Any] = {
    "read": "2026-11-21T00:20:02.1Z",
    "pids_stats": {"current": 5, "limit": 9000},
    "cpu_stats": {
        "cpu_usage": {"total_usage": 3_000_000_000, "usage_in_kernelmode": 1, "usage_in_usermode": 2},
        "system_cpu_usage": 204_000_000_000,
        "online_cpus": 4,
    },
    "precpu_stats": {"cpu_usage": {"total_usage": 0}},
    "memory_stats": {
        "usage": 70_000_000,
        "stats": {"anon": 40_000_000, "file": 30_000_000, "inactive_file": 10_000_000},
        "limit": 8_000_000_000,
    },
}


def parse(report: dict[str, Any]) -> ResourceUsage | None:
    return parse_stats(msgspec.json.decode(msgspec.json.encode(report), type=Stats), at=5.0)


def test_a_report_with_control_groups_v1() -> None:
    assert parse(V1) == ResourceUsage(
        at=5.0,
        cpu_percent=50.0,
        memory=41_000_000,
        memory_rss=35_000_000,
        memory_limit=536_870_912,
        network_received=1300,
        network_sent=500,
        pids=13,
    )


def test_a_first_report_with_control_groups_v2_and_no_network() -> None:
    assert parse(V2) == ResourceUsage(
        at=5.0,
        cpu_percent=None,
        memory=60_000_000,
        memory_rss=40_000_000,
        memory_limit=8_000_000_000,
        network_received=0,
        network_sent=0,
        pids=5,
    )


def test_a_container_that_does_not_run_has_none() -> None:
    assert parse({"memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}}) is None


def test_figures_that_an_engine_leaves_out_are_zero() -> None:
    usage = parse({"memory_stats": {"usage": 10}, "networks": {"eth0": {"rx_packets": 1}}, "cpu_stats": {}})
    assert usage == ResourceUsage(5.0, None, 10, 0, 0, 0, 0, 0)
