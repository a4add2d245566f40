"""Own certificate files, and every way in which they are wrong."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from ai_proxy.tls.certificates import PemFiles, check_dates, read_certificate
from ai_proxy.tls.errors import (
    CertificateDateError,
    CertificateError,
    CertificateInvalidError,
    CertificateKeyMismatchError,
    CertificateUnreadableError,
)

SOMEBODY = 65534
"""The user who owns nothing."""


def test_says_what_a_certificate_is_for_and_until_when(tmp_path: Path, ca: trustme.CA) -> None:
    ends = datetime(2040, 5, 1, tzinfo=UTC)
    issued = ca.issue_cert("gpu.example.com", "::1", not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")

    certificate = read_certificate(PemFiles(tmp_path / "both.pem"))

    assert certificate.names == {"gpu.example.com", "::1"}
    assert certificate.ends == ends.timestamp()
    assert str(certificate).startswith(
        "certificate for ::1, gpu.example.com, valid until 2040-05-01 00:00 UTC"
    )


def test_a_missing_file_is_named(files: PemFiles) -> None:
    files.certificate.unlink()

    with pytest.raises(CertificateUnreadableError, match=r"cannot read .*cert\.pem: No such file"):
        read_certificate(files)


def test_a_folder_is_not_a_key(files: PemFiles, tmp_path: Path) -> None:
    with pytest.raises(CertificateUnreadableError, match=r"cannot read .*: Is a directory"):
        read_certificate(PemFiles(files.certificate, tmp_path))


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be a user who may not read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_of_somebody_else_is_named(files: PemFiles) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        certificate, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        shutil.copy(files.certificate, certificate)
        shutil.copy(files.key_file, key)
        for path, mode in ((Path(folder), 0o755), (certificate, 0o644), (key, 0)):
            path.chmod(mode)

        with (
            as_somebody(),
            pytest.raises(CertificateUnreadableError, match=r"cannot read .*key\.pem: Permission denied"),
        ):
            read_certificate(PemFiles(certificate, key))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_refused(files: PemFiles, content: bytes) -> None:
    files.certificate.write_bytes(content)

    with pytest.raises(CertificateInvalidError, match=r"cert\.pem contains no valid PEM certificate"):
        read_certificate(files)


def test_a_certificate_cut_short_is_refused(files: PemFiles) -> None:
    lines = files.certificate.read_text().splitlines()
    files.certificate.write_text("\n".join([*lines[:5], lines[-1]]))

    with pytest.raises(CertificateInvalidError, match="contains no valid PEM certificate"):
        read_certificate(files)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(files: PemFiles, content: bytes) -> None:
    files.key_file.write_bytes(content)

    with pytest.raises(CertificateInvalidError, match=r"key\.pem contains no valid PEM private key"):
        read_certificate(files)


def test_a_passphrase_is_refused_with_what_to_do(files: PemFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    files.key_file.write_bytes(encrypted)

    with pytest.raises(CertificateInvalidError, match=r"has a passphrase.*openssl pkey -in"):
        read_certificate(files)


def test_the_key_of_another_certificate_is_refused(files: PemFiles, ca: trustme.CA) -> None:
    ca.issue_cert("other").private_key_pem.write_to_path(files.key_file)

    with pytest.raises(CertificateKeyMismatchError, match="does not belong to the certificate"):
        read_certificate(files)


def test_a_chain_in_the_wrong_order_is_refused(files: PemFiles, ca: trustme.CA) -> None:
    files.certificate.write_bytes(ca.cert_pem.bytes() + files.certificate.read_bytes())

    with pytest.raises(CertificateKeyMismatchError, match="put the server's certificate first"):
        read_certificate(files)


def test_a_certificate_out_of_date_is_refused(files: PemFiles) -> None:
    certificate = read_certificate(files)

    check_dates(certificate, files.certificate, certificate.starts)
    check_dates(certificate, files.certificate, certificate.ends - 1)
    with pytest.raises(CertificateDateError, match="is not valid before"):
        check_dates(certificate, files.certificate, certificate.starts - 1)
    with pytest.raises(CertificateDateError, match=r"cert\.pem expired on"):
        check_dates(certificate, files.certificate, certificate.ends)


def test_every_error_has_a_name_of_its_own() -> None:
    kinds: list[type[CertificateError]] = [CertificateError, *CertificateError.__subclasses__()]

    assert len({kind.code for kind in kinds}) == len(kinds)
