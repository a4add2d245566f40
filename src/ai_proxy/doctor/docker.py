"""Check of the Docker engine."""

from collections.abc import Sequence

from ai_proxy.config.build import server_settings
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import RuntimeKind
from ai_proxy.doctor.finding import Finding, ok, problem, shorten
from ai_proxy.doctor.installation import Installation
from ai_proxy.runtimes.docker.access import Access, AccessFinder, machine_of, own_container
from ai_proxy.runtimes.docker.answers import SystemVersion
from ai_proxy.runtimes.docker.api import DockerApi, fill_in

SUBJECT = "Docker"


def classify_docker(version: str, trouble: str, needed_by: Sequence[str]) -> Finding:
    """Return whether the Docker engine is usable.

    Args:
        version: Version and location of the engine; empty when it does not respond.
        trouble: Why it is unusable; empty when it is usable.
        needed_by: Services that run as containers.

    >>> print(classify_docker("", "no such socket", ()).text)
    unusable (no such socket), but no service needs it
    """
    if not trouble:
        return ok(SUBJECT, version)
    if not needed_by:
        return ok(SUBJECT, f"unusable ({shorten(trouble, 120)}), but no service needs it")
    return problem(
        SUBJECT,
        f"{', '.join(needed_by)} cannot start: {shorten(trouble)}",
        "start Docker, or correct server.docker",
    )


def describe_access(access: Access, remote: str | None) -> str:
    """Describe how the proxy reaches containers.

    >>> describe_access(Access(networks=("models",)), None), describe_access(Access("10.0.0.5"), "10.0.0.5")
    ('the proxy itself runs in a container, in network models', 'on another machine, containers at 10.0.0.5')
    >>> describe_access(Access(gateways=frozenset({"172.17.0.1"})), None), describe_access(Access(), None)
    ('on this machine', 'in a VM or rootless, containers at 127.0.0.1')
    """
    if access.networks:
        return f"the proxy itself runs in a container, in network {access.networks[0]}"
    if access.gateways:
        return "on this machine"
    where = "on another machine" if remote else "in a VM or rootless"
    return f"{where}, containers at {access.address}"


async def check_docker(installation: Installation) -> Sequence[Finding]:
    """Query the engine's version, and find out how the proxy reaches its containers."""
    needed = [one.id for one in installation.services if one.launch.runtime is RuntimeKind.DOCKER]
    settings = fill_in(server_settings(installation.config).docker, installation.env)
    api = DockerApi(settings.host, settings.certificates)
    try:
        version = (await api.get("/version", SystemVersion)).version
        access = await AccessFinder(settings, api, own_container()).find()
    except RuntimeFailureError as error:
        return [classify_docker("", error.detail, needed)]
    finally:
        await api.close()
    return [classify_docker(f"{version}, {describe_access(access, machine_of(settings.host))}", "", needed)]
