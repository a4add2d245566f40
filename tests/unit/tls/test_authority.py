"""The local authority, as OpenSSL judges it."""

import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ai_proxy.tls.authority import AUTHORITY_LIFE, authority_files, issue, keep_authority, make_authority
from ai_proxy.tls.certificates import key_pem, read_certificate
from ai_proxy.tls.errors import CertificateInvalidError, CertificateKeyMismatchError

NAMES = ("localhost", "127.0.0.1", "::1", "gpu", "gpu.local", "10.1.2.3", "fd00::7")
NOW = time.time()


def verify(folder: Path, authority: bytes, leaf: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    """Ask OpenSSL whether a certificate holds."""
    (folder / "authority.pem").write_bytes(authority)
    (folder / "leaf.pem").write_bytes(leaf)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *options]
    return subprocess.run(
        [*command, "-CAfile", folder / "authority.pem", folder / "leaf.pem"], capture_output=True, text=True
    )


@pytest.mark.parametrize("name", NAMES)
def test_openssl_trusts_a_certificate_for_every_name_of_the_machine(tmp_path: Path, name: str) -> None:
    authority = make_authority(NAMES, NOW)
    option = "-verify_ip" if name[0].isdigit() or ":" in name else "-verify_hostname"

    done = verify(
        tmp_path, authority.certificate.public_bytes(Encoding.PEM), issue(authority, NAMES, NOW), option, name
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["bank.example.com", "93.184.216.34", "2606:2800::1"])
def test_a_stolen_key_is_no_good_for_public_names(tmp_path: Path, name: str) -> None:
    authority = make_authority(NAMES, NOW)
    forged = issue(authority, [*NAMES, name], NOW)

    done = verify(tmp_path, authority.certificate.public_bytes(Encoding.PEM), forged)

    assert "permitted subtree violation" in done.stderr
    assert authority.allowed([*NAMES, name]) == NAMES


def test_the_machines_own_public_names_are_allowed(tmp_path: Path) -> None:
    names = ("localhost", "gpu.example.com", "93.184.216.34")
    authority = make_authority(names, NOW)

    done = verify(tmp_path, authority.certificate.public_bytes(Encoding.PEM), issue(authority, names, NOW))

    assert done.returncode == 0, done.stderr
    assert authority.allowed(["www.gpu.example.com", "example.com", "93.184.216.35"]) == (
        "www.gpu.example.com",
    )


def test_it_is_kept(tmp_path: Path) -> None:
    first = keep_authority(tmp_path, NAMES, NOW)

    second = keep_authority(tmp_path, ("localhost",), NOW + 1_000_000)

    assert second.certificate == first.certificate
    assert "ai-proxy local CA (gpu)" in first.certificate.subject.rfc4514_string()


def test_it_is_replaced_before_it_expires(tmp_path: Path) -> None:
    first = keep_authority(tmp_path, NAMES, NOW)

    second = keep_authority(tmp_path, NAMES, NOW + AUTHORITY_LIFE.total_seconds() - 1_000_000)

    assert second.certificate != first.certificate
    assert second.certificate.not_valid_after_utc > first.certificate.not_valid_after_utc


def test_proxies_that_start_at_once_have_the_same(tmp_path: Path) -> None:
    found: list[x509.Certificate] = []
    threads = [
        threading.Thread(target=lambda: found.append(keep_authority(tmp_path, NAMES, NOW).certificate))
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


def test_one_that_was_tampered_with_is_not_replaced_in_silence(tmp_path: Path) -> None:
    keep_authority(tmp_path, NAMES, NOW)
    files = authority_files(tmp_path)
    files.key_file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))

    with pytest.raises(CertificateKeyMismatchError):
        keep_authority(tmp_path, NAMES, NOW)


def test_the_key_of_something_else_is_refused(tmp_path: Path) -> None:
    files = authority_files(tmp_path)
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    made = make_authority(NAMES, NOW).certificate
    certificate = (
        request.public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    files.key_file.write_bytes(key_pem(key))
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    with pytest.raises(CertificateInvalidError, match="is not the key of a local CA"):
        keep_authority(tmp_path, NAMES, NOW)


def test_only_the_owner_reads_what_is_kept(tmp_path: Path) -> None:
    keep_authority(tmp_path / "tls", NAMES, NOW)

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "tls").iterdir()}

    assert modes == {"ca.pem": "0o600", "ca-key.pem": "0o600", "lock": "0o600"}
    assert read_certificate(authority_files(tmp_path / "tls")).names == frozenset()
