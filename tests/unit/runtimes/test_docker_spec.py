from typing import Any

import msgspec

from ai_proxy.core.service import DockerLaunch, Healthcheck, Service, Upstream
from ai_proxy.runtimes.docker.access import LOOPBACK, Access, is_here
from ai_proxy.runtimes.docker.answers import Container, SystemInfo
from ai_proxy.runtimes.docker.spec import make_body, make_labels, parse_exit, parse_handle

LAUNCH = DockerLaunch("image:1", 8080)


ON_HOST = Access()


def body(access: Access = ON_HOST, **launch: Any) -> Any:
    return make_body(DockerLaunch(**{"image": "image:1", "port": 8080, **launch}), {}, access)


def test_a_plain_container_is_published_on_loopback_and_never_restarted() -> None:
    made = body()
    assert made["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert made["HostConfig"]["Init"] is True


def test_limits_that_are_not_declared_are_left_to_the_engine() -> None:
    declared = {"Memory", "MemorySwap", "NanoCpus", "PidsLimit", "ShmSize", "NetworkMode"}
    assert not declared & set(body()["HostConfig"])


def test_a_memory_limit_is_not_stretched_by_swap() -> None:
    config = body(memory_mb=100)["HostConfig"]
    assert config["Memory"] == config["MemorySwap"] == 100 * 1024 * 1024


def test_what_the_image_runs_is_replaced_only_where_declared() -> None:
    assert "Entrypoint" not in body(args=("-m", "x"))
    assert body(args=("-m", "x"))["Cmd"] == ["-m", "x"]
    assert body(command=("run",))["Entrypoint"] == ["run"]


def test_a_health_check_is_a_command_unless_it_says_what_it_is() -> None:
    plain = Healthcheck(("curl", "x"), interval=0.5)
    shell = Healthcheck(("CMD-SHELL", "curl x"))
    assert body(healthcheck=plain)["Healthcheck"]["Test"] == ["CMD", "curl", "x"]
    assert body(healthcheck=plain)["Healthcheck"]["Interval"] == 500_000_000
    assert body(healthcheck=shell)["Healthcheck"]["Test"] == ["CMD-SHELL", "curl x"]


def test_beside_a_proxy_in_a_container_only_a_chosen_port_is_published() -> None:
    beside = Access(networks=("mine",))
    assert body(beside)["HostConfig"]["PortBindings"] == {}
    assert body(beside)["HostConfig"]["NetworkMode"] == "mine"
    assert body(beside, host_port=80)["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostPort"] == "80"


def inspected(**networks: dict[str, str]) -> dict[str, Any]:
    service = Service("llama3", "generic", "generic", LAUNCH, config_hash="abc")
    return {
        "Id": "0123456789abcdef",
        "Config": {"Labels": make_labels(service, LAUNCH, "me", "1.0")},
        "State": {"StartedAt": "2025-01-01T00:00:00.5Z", "Running": True},
        "NetworkSettings": {
            "Networks": networks,
            "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]},
        },
    }


BRIDGE = {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}


def container(facts: dict[str, Any]) -> Container:
    return msgspec.convert(facts, Container)


def upstream(facts: dict[str, Any], access: Access) -> Upstream:
    handle = parse_handle(container(facts), access)
    assert handle is not None
    return handle.upstreams[0]


def test_a_handle_is_read_from_what_the_engine_knows() -> None:
    handle = parse_handle(container(inspected(bridge=BRIDGE)), Access())
    assert handle is not None
    assert (handle.service_id, handle.config_hash, handle.ref) == ("llama3", "abc", "0123456789abcdef")
    assert handle.started == 1735689600.5


def test_a_container_without_our_labels_has_no_handle() -> None:
    facts = inspected() | {"Config": {"Labels": None}}
    assert parse_handle(container(facts), Access()) is None


def test_a_container_is_reached_where_it_is_published() -> None:
    assert upstream(inspected(bridge=BRIDGE), Access()) == Upstream(LOOPBACK, 32768)


def test_a_container_on_a_bridge_of_this_machine_is_reached_directly() -> None:
    near = Access(gateways=frozenset({"127.0.0.1", "172.17.0.1"}))
    assert upstream(inspected(bridge=BRIDGE), near) == Upstream("172.17.0.2", 8080)


def test_a_container_on_a_bridge_elsewhere_is_reached_where_it_is_published() -> None:
    far = Access(gateways=frozenset({"127.0.0.1", "172.18.0.1"}))
    assert upstream(inspected(bridge=BRIDGE), far) == Upstream(LOOPBACK, 32768)


def test_a_container_in_our_network_is_reached_there() -> None:
    shared = {"IPAddress": "172.20.0.3", "Gateway": "172.20.0.1"}
    assert upstream(inspected(bridge=BRIDGE, mine=shared), Access(networks=("mine",))) == Upstream(
        "172.20.0.3", 8080
    )


def test_a_container_that_has_ended_is_reached_nowhere() -> None:
    facts = inspected(bridge={"IPAddress": "", "Gateway": ""})
    facts["NetworkSettings"]["Ports"] = {}
    assert upstream(facts, Access(gateways=frozenset({"127.0.0.1"}))).port == 0


def test_an_engine_on_another_machine_is_not_here() -> None:
    info = SystemInfo("box", "6.1", 8)
    assert is_here(info, "box", "6.1", 8)
    assert not is_here(info, "docker-desktop", "6.1", 8)
    assert not is_here(info, "box", "6.2", 8)
    assert not is_here(info, "box", "6.1", 9)


def test_exits_are_told_in_words() -> None:
    assert parse_exit(0).detail == "exit code 0"
    assert parse_exit(143).detail == "killed by SIGTERM (exit code 143)"
    assert parse_exit(255).detail == "exit code 255"
    assert parse_exit(137, out_of_memory=True).detail == "killed: out of memory (exit code 137)"


def test_a_label_that_is_no_port_makes_no_handle() -> None:
    facts = inspected(bridge=BRIDGE)
    facts["Config"]["Labels"]["ai-proxy.port"] = "²"
    assert parse_handle(container(facts), Access()) is None


def test_a_handle_of_another_version_says_so() -> None:
    facts = inspected(bridge=BRIDGE)
    facts["Config"]["Labels"]["ai-proxy.handle-version"] = "99"
    handle = parse_handle(container(facts), Access())
    assert handle is not None
    assert handle.version == 99
