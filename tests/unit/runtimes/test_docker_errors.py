import errno
import os

import pytest

from ai_proxy.core.service import DockerLaunch
from ai_proxy.runtimes.docker.errors import explain, explain_unreachable

LAUNCH = DockerLaunch("ghcr.io/x/y:1", 8080, host_port=80)


def caused_by(number: int) -> Exception:
    error = ConnectionError("cannot connect to host")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            caused_by(errno.EACCES),
            "this user may not use Docker at unix:///run/docker.sock (permission denied on its socket): join",
        ),
        (caused_by(errno.ENOENT), "there is no such socket"),
        (caused_by(errno.ECONNREFUSED), "is away (Connection refused): start it"),
        (TimeoutError(), "does not answer in time"),
    ],
)
def test_an_engine_out_of_reach_is_explained_by_its_cause(error: Exception, said: str) -> None:
    assert said in explain_unreachable("unix:///run/docker.sock", error)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "pull access denied for x/y, repository does not exist or may require a login",
            "docker login",
        ),
        ("manifest for ghcr.io/x/y:1 not found: manifest unknown", "is not in its registry"),
        ("Get https://ghcr.io/v2/: dial tcp: lookup ghcr.io: no such host", "cannot be reached (Get https"),
        ("unauthorized: authentication required", "the registry refuses image ghcr.io/x/y:1"),
        ("write /var/lib/docker/tmp/x: no space left on device", "Docker's disk is full"),
        ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "set gpus: none"),
        ("Bind for 127.0.0.1:80 failed: port is already allocated", "port 80 is taken"),
        ('exec: "docker-init": executable file not found in $PATH', "install docker-init"),
        ("network models not found", "Docker has no network models: run"),
        ("network with name or ID models: network not found", "Docker has no network models: run"),
        ("statfs /models: no such file or directory", "/models does not exist on the host"),
        ("unable to find group x: no matching entries", "ghcr.io/x/y:1 has no group x: correct 'user'"),
        ("something nobody has ever heard of", "Docker refused: something nobody has ever heard of"),
    ],
)
def test_what_the_engine_says_is_told_with_what_to_do(message: str, said: str) -> None:
    assert said in explain(LAUNCH, message)
