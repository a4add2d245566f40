"""Certificates in files: reading and checking them."""

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
    """The files of a certificate and its private key.

    Attributes:
        certificate: PEM: the server's certificate first, then its intermediates.
        key: PEM; None when the key is in the same file.
    """

    certificate: Path
    key: Path | None = None

    @property
    def key_file(self) -> Path:
        """The file of the private key."""
        return self.key or self.certificate


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts about a certificate.

    Attributes:
        names: Its subject alternative names: DNS names and addresses.
        starts: Begin of its validity, in seconds since the epoch.
        ends: End of its validity.
        issuer: Name of its issuer.
        serial: Serial number, in hexadecimal.
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
    """Format a time for people.

    >>> day(1_700_000_000)
    '2023-11-14 22:13 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def read_certificate(files: PemFiles) -> Certificate:
    """Read a certificate and check that the key belongs to it; its dates are not checked.

    Raises:
        CertificateError: They cannot be used.
    """
    chain = _certificates(files.certificate)
    key = _key(files.key_file)
    if _bytes_of(key.public_key()) != _bytes_of(chain[0].public_key()):
        raise _mismatch(files, key, chain)
    return describe(chain[0])


def check_dates(certificate: Certificate, path: Path, now: float) -> None:
    """Check that a certificate is valid at a time, in seconds since the epoch.

    Raises:
        CertificateDateError: It is expired, or not valid yet.
    """
    if certificate.ends <= now:
        raise CertificateDateError(f"{path} expired on {day(certificate.ends)}; replace it with a new one")
    if certificate.starts > now:
        raise CertificateDateError(
            f"{path} is not valid before {day(certificate.starts)}; check the clock of this machine"
        )


def describe(certificate: x509.Certificate) -> Certificate:
    """Return the facts about a certificate."""
    issuer = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return Certificate(
        names_of(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:x}",
    )


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the subject alternative names of a certificate."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = found.get_values_for_type(x509.IPAddress)
    return frozenset({*found.get_values_for_type(x509.DNSName), *map(str, addresses)})


def general_name(name: str) -> x509.GeneralName:
    """Return a name or an address in the form of certificates."""
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
    """Return the content of a file.

    Raises:
        CertificateUnreadableError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnreadableError(
            f"cannot read {path}: {error.strerror}; check the path and its permissions"
        ) from error


def _certificates(path: Path) -> list[x509.Certificate]:
    content = read_file(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise CertificateInvalidError(
            f"{path} contains no valid PEM certificate, which is between '-----BEGIN CERTIFICATE-----'"
            " and '-----END CERTIFICATE-----'; check the file"
        ) from error


def _key(path: Path) -> PrivateKeyTypes:
    content = read_file(path)
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise CertificateInvalidError(
            f"the private key in {path} has a passphrase; remove it with:"
            f" openssl pkey -in {path} -out new-key.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateInvalidError(
            f"{path} contains no valid PEM private key, which is between '-----BEGIN PRIVATE KEY-----'"
            " and '-----END PRIVATE KEY-----'; check the file"
        ) from error


def _mismatch(
    files: PemFiles, key: PrivateKeyTypes, chain: list[x509.Certificate]
) -> CertificateKeyMismatchError:
    ours = _bytes_of(key.public_key())
    if any(_bytes_of(certificate.public_key()) == ours for certificate in chain[1:]):
        return CertificateKeyMismatchError(
            f"the first certificate in {files.certificate} is not the one of the private key;"
            " put the server's certificate first, then its intermediates"
        )
    return CertificateKeyMismatchError(
        f"the private key in {files.key_file} does not belong to the certificate in {files.certificate};"
        " use a key and a certificate that were made together"
    )


def _bytes_of(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
