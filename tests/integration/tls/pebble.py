"""Pebble, the test server of Let's Encrypt, and a name server that leads every name here."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

NEEDED = ("pebble", "pebble-challtestsrv")
READY = 60.0
"""Longest wait, in seconds, for it to answer."""


def reason_for_none() -> str | None:
    """Say why it cannot be run here; None when it can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (Debian: pebble)" if missing else None


@dataclass(frozen=True, slots=True)
class Pebble:
    """A running authority.

    Attributes:
        directory: URL of its directory.
        ca_file: By which its own server is known.
        root: By which the certificates that it issues are known.
        challenge_port: Where it looks for answers, in the place of port 80.
        log: The file it logs to.
    """

    directory: str
    ca_file: Path
    root: str
    challenge_port: int
    log: Path


@contextmanager
def pebble_with(
    folder: Path, variables: Mapping[str, str] = {}, settings: Mapping[str, object] = {}
) -> Iterator[Pebble]:
    """Run it in a folder.

    Args:
        folder: Takes its files.
        variables: Of its environment.
        settings: Of its configuration.
    """
    listen, manage, challenge, dns, control, unused = free_ports(6)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    configuration = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{manage}",
        "certificate": "cert.pem",
        "privateKey": "key.pem",
        "httpPort": challenge,
        "tlsPort": unused,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        **settings,
    }
    (folder / "config.json").write_text(json.dumps({"pebble": configuration}))
    names = ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]
    names += ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}"]
    names += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    server = ["pebble", "-config", "config.json", "-dnsserver", f"127.0.0.1:{dns}"]
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "0"}
    with ExitStack() as stack:
        stack.enter_context(_running(names, folder, {}, folder / "names.log"))
        stack.enter_context(_running(server, folder, {**quick, **variables}, folder / "pebble.log"))
        trusting = ssl.create_default_context(cafile=folder / "ca.pem")
        root = _answer(f"https://127.0.0.1:{manage}/roots/0", trusting)
        directory = f"https://127.0.0.1:{listen}/dir"
        _answer(directory, trusting)
        yield Pebble(directory, folder / "ca.pem", root, challenge, folder / "pebble.log")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _running(command: list[str], folder: Path, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=folder, env={**os.environ, **variables}, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def _answer(url: str, trusting: ssl.SSLContext) -> str:
    deadline = time.monotonic() + READY
    while True:
        try:
            with urllib.request.urlopen(url, context=trusting, timeout=READY) as response:  # noqa: S310
                text: str = response.read().decode()
                return text
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
