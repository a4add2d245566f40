"""Certificates as files: what they say, and whether they can be used."""

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from ai_proxy.tls.errors import (
    CertificateDateError,
    CertificateInvalidError,
    CertificateKeyMismatchError,
    CertificateUnreadableError,
)


@dataclass(frozen=True, slots=True)
class PemFiles:
    """Where a certificate and its private key are.

    Attributes:
        certificate: PEM: the server's first, then those between it and the root.
        key: PEM; None when it is in the same file.
    """

    certificate: Path
    key: Path | None = None

    @property
    def key_file(self) -> Path:
        """The file that the private key is in."""
        return self.key or self.certificate


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says.

    Attributes:
        names: Names and addresses that it is for.
        starts: From when it is valid, in seconds since the epoch.
        ends: Until when.
        issuer: Who vouches for it, for people.
        serial: Its number, in hexadecimal.
    """

    names: frozenset[str]
    starts: float
    ends: float
    issuer: str
    serial: str

    def __str__(self) -> str:
        names = ", ".join(sorted(self.names)) or "no names"
        return f"certificate for {names}, valid until {day(self.ends)}, issued by {self.issuer}"


def day(seconds: float) -> str:
    """Return a moment as people write it.

    >>> day(1_700_000_000)
    '2023-11-14 22:13 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def read_certificate(files: PemFiles) -> Certificate:
    """Read a certificate and see that its key belongs to it; whether it is out of date is not asked.

    Raises:
        CertificateError: They cannot be used; says why.
    """
    chain = _certificates(files.certificate)
    key = _key(files.key_file)
    if _bytes_of(key.public_key()) != _bytes_of(chain[0].public_key()):
        raise _mismatch(files, key, chain)
    return describe(chain[0])


def check_dates(certificate: Certificate, path: Path, now: float) -> None:
    """Refuse a certificate that is not valid now, in seconds since the epoch.

    Raises:
        CertificateDateError: It is not.
    """
    if certificate.ends <= now:
        raise CertificateDateError(f"{path} expired on {day(certificate.ends)}; put a new one in its place")
    if certificate.starts > now:
        raise CertificateDateError(
            f"{path} is valid only from {day(certificate.starts)} on; check this machine's clock"
        )


def describe(certificate: x509.Certificate) -> Certificate:
    """Return what a certificate says."""
    issuer = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return Certificate(
        names_of(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:x}",
    )


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = found.get_values_for_type(x509.IPAddress)
    return frozenset({*found.get_values_for_type(x509.DNSName), *map(str, addresses)})


def general_name(name: str) -> x509.GeneralName:
    """Return a name or an address as certificates have it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def key_pem(key: PrivateKeyTypes) -> bytes:
    """Return a private key as PEM, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_file(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        CertificateUnreadableError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnreadableError(
            f"{path} cannot be read: {error.strerror}; check the path, and who may read it"
        ) from error


def _certificates(path: Path) -> list[x509.Certificate]:
    content = read_file(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise CertificateInvalidError(
            f"{path} holds no certificate in PEM form; it must have the lines '-----BEGIN CERTIFICATE-----'"
            f" and '-----END CERTIFICATE-----', unharmed"
        ) from error


def _key(path: Path) -> PrivateKeyTypes:
    content = read_file(path)
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise CertificateInvalidError(
            f"the private key in {path} has a passphrase; store it without:"
            f" openssl pkey -in {path} -out new-key.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateInvalidError(
            f"{path} holds no private key in PEM form; it must have the lines '-----BEGIN PRIVATE KEY-----'"
            f" and '-----END PRIVATE KEY-----', unharmed"
        ) from error


def _mismatch(
    files: PemFiles, key: PrivateKeyTypes, chain: list[x509.Certificate]
) -> CertificateKeyMismatchError:
    ours = _bytes_of(key.public_key())
    if any(_bytes_of(certificate.public_key()) == ours for certificate in chain[1:]):
        return CertificateKeyMismatchError(
            f"{files.certificate} begins with another certificate than that of its key;"
            " put the server's first, then those between it and the root"
        )
    return CertificateKeyMismatchError(
        f"the private key in {files.key_file} does not belong to the certificate in {files.certificate};"
        " give the two that were made together"
    )


def _bytes_of(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
