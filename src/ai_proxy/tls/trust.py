"""How clients are made to trust the local authority."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ai_proxy.core.errors import ProxyError
from ai_proxy.tls.certificates import PemFiles, read_certificate
from ai_proxy.tls.errors import CertificateUnreadableError

type Command = tuple[str, ...]

COMMAND_TIMEOUT = 60.0
"""Seconds for one command; macOS may ask for a password."""


class TrustError(ProxyError):
    """The system's store of authorities could not be changed."""

    code, title = "trust_failed", "Trust could not be changed"


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Where a system keeps the authorities it trusts, as commands for a privileged user.

    Attributes:
        name: The system, for people.
        install: Make it trust the local authority.
        uninstall: Make it forget it.
    """

    name: str
    install: tuple[Command, ...]
    uninstall: tuple[Command, ...]


def local_authority(files: PemFiles) -> str:
    """Return the fingerprint of the local authority, SHA-256 in hexadecimal.

    Raises:
        CertificateError: There is none, or it cannot be used.
    """
    if not files.certificate.exists():
        raise CertificateUnreadableError(
            f"there is no local CA in {files.certificate.parent} yet; it is made by the first start with"
            " tls.mode dev-selfsigned"
        )
    read_certificate(files)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def trust_store(
    authority: Path,
    fingerprint: str,
    system: str,
    has: Callable[[str], bool] = lambda program: shutil.which(program) is not None,
) -> TrustStore | None:
    """Return how this system is made to trust an authority; None when that is not known.

    Args:
        authority: Its certificate.
        fingerprint: Of it; tells it from those of other users.
        system: As `sys.platform`.
        has: Tells whether a program is installed.

    >>> trust_store(Path("/x/ca.pem"), "c0ffee" * 10, "linux", lambda name: name == "update-ca-trust").name
    'Fedora, RHEL and the like'
    """
    path, name = str(authority), f"ai-proxy-{fingerprint[:8]}"
    if system == "darwin":
        keychain = "/Library/Keychains/System.keychain"
        return TrustStore(
            "macOS",
            (("security", "add-trusted-cert", "-d", "-r", "trustRoot", "-k", keychain, path),),
            (("security", "remove-trusted-cert", "-d", path),),
        )
    if has("update-ca-certificates"):
        there = f"/usr/local/share/ca-certificates/{name}.crt"
        return TrustStore(
            "Debian, Ubuntu and the like",
            (("install", "-m", "644", path, there), ("update-ca-certificates",)),
            (("rm", "-f", there), ("update-ca-certificates", "--fresh")),
        )
    if has("update-ca-trust"):
        there = f"/etc/pki/ca-trust/source/anchors/{name}.pem"
        return TrustStore(
            "Fedora, RHEL and the like",
            (("install", "-m", "644", path, there), ("update-ca-trust",)),
            (("rm", "-f", there), ("update-ca-trust",)),
        )
    return None


def instructions(authority: Path, fingerprint: str, store: TrustStore | None) -> str:
    """Say how clients are made to trust the local authority."""
    path = shlex.quote(str(authority))
    system = (
        [f"This system ({store.name}):", *(f"  sudo {shlex.join(words)}" for words in store.install)]
        if store
        else ["This system: add the file to its store of trusted authorities by hand."]
    )
    return "\n".join(
        [
            f"The local CA is in {authority}",
            f"SHA-256 {fingerprint}",
            "",
            *system,
            "",
            "Programs that do not ask the system:",
            f"  curl            curl --cacert {path} ...",
            f"  Python          SSL_CERT_FILE={path}      (openai, httpx, aiohttp)",
            f"                  REQUESTS_CA_BUNDLE={path} (requests)",
            f"  Node.js         NODE_EXTRA_CA_CERTS={path}",
            f"  Java            keytool -importcert -cacerts -noprompt -alias ai-proxy -file {path}",
            "  Firefox         Settings, Certificates, View Certificates, Authorities, Import",
            "  Chrome on Linux Settings, Security, Manage certificates, Authorities, Import",
            "  iOS, Android    send the file to the device, and install it as a CA certificate",
            "",
            "Only the file above is for others; the key beside it stays here.",
        ]
    )


def change_trust(commands: tuple[Command, ...], *, privileged: bool) -> None:
    """Run the commands that change a system's store.

    Args:
        commands: One after the other.
        privileged: Whether this program has an administrator's rights.

    Raises:
        TrustError: They may not be run, or one of them failed.
    """
    if not privileged:
        shown = "\n".join(f"  sudo {shlex.join(words)}" for words in commands)
        raise TrustError(f"this takes an administrator's rights; run it yourself:\n{shown}")
    for words in commands:
        try:
            subprocess.run(words, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout).strip() or f"exit code {error.returncode}"
            raise TrustError(f"'{shlex.join(words)}' failed: {said}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrustError(f"'{shlex.join(words)}' could not be run: {error}") from error
