"""Making clients trust the local authority."""

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
    """The system's trust store could not be changed."""

    code, title = "trust_failed", "Cannot change the trust store"


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The trust store of a system, as commands for a privileged user.

    Attributes:
        name: Of the system.
        install: Adds the local authority.
        uninstall: Removes it.
    """

    name: str
    install: tuple[Command, ...]
    uninstall: tuple[Command, ...]


def local_authority(files: PemFiles) -> str:
    """Return the fingerprint of the local authority, SHA-256 in hexadecimal.

    Raises:
        CertificateError: It does not exist, or cannot be used.
    """
    if not files.certificate.exists():
        raise CertificateUnreadableError(
            f"there is no local CA in {files.certificate.parent} yet; start ai-proxy once with"
            " tls.mode dev-selfsigned to create it"
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
    """Return the trust store of a system; None when it is unknown.

    Args:
        authority: The certificate to trust.
        fingerprint: Of the certificate; makes its file name unique.
        system: As in `sys.platform`.
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
    """Return instructions for making clients trust the local authority."""
    path = shlex.quote(str(authority))
    system = (
        [f"This system ({store.name}):", *(f"  sudo {shlex.join(words)}" for words in store.install)]
        if store
        else ["This system: add the file to its trust store by hand."]
    )
    return "\n".join(
        [
            f"The local CA is in {authority}",
            f"SHA-256 {fingerprint}",
            "",
            *system,
            "",
            "Programs with a trust store of their own:",
            f"  curl            curl --cacert {path} ...",
            f"  Python          SSL_CERT_FILE={path}      (openai, httpx, aiohttp)",
            f"                  REQUESTS_CA_BUNDLE={path} (requests)",
            f"  Node.js         NODE_EXTRA_CA_CERTS={path}",
            f"  Java            keytool -importcert -cacerts -noprompt -alias ai-proxy -file {path}",
            "  Firefox         Settings, Certificates, View Certificates, Authorities, Import",
            "  Chrome on Linux Settings, Security, Manage certificates, Authorities, Import",
            "  iOS, Android    send the file to the device, and install it as a CA certificate",
            "",
            "Share only the file above; keep the key beside it secret.",
        ]
    )


def change_trust(commands: tuple[Command, ...], *, privileged: bool) -> None:
    """Run the commands that change a trust store.

    Args:
        commands: In order.
        privileged: Whether this process has administrator's rights.

    Raises:
        TrustError: The rights are missing, or a command failed.
    """
    if not privileged:
        shown = "\n".join(f"  sudo {shlex.join(words)}" for words in commands)
        raise TrustError(f"this needs administrator's rights; run:\n{shown}")
    for words in commands:
        try:
            subprocess.run(words, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout).strip() or f"exit code {error.returncode}"
            raise TrustError(f"'{shlex.join(words)}' failed: {said}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrustError(f"'{shlex.join(words)}' cannot be run: {error}") from error
