"""The local certificate authority of this machine, limited to private names."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ai_proxy.tls.certificates import PemFiles, general_name, key_pem, read_certificate
from ai_proxy.tls.errors import CertificateInvalidError
from ai_proxy.tls.files import locked, write_private

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
SKEW = timedelta(hours=1)
"""Certificates become valid this much in the past, for clients whose clock is slow."""

PRIVATE_DOMAINS = ("localhost", "local", "internal", "lan", "home.arpa", "test")
"""Domains that do not exist in public DNS (RFC 6761, 6762, 8375), or hardly: a stolen key can only forge
certificates for these and for the networks below."""
PRIVATE_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"<Authority {self.certificate.subject.rfc4514_string()}>"

    def allowed(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that its constraints permit: clients reject a certificate with any other name."""
        constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        permitted = constraints.permitted_subtrees or []
        return tuple(name for name in names if any(_within(name, subtree) for subtree in permitted))


def authority_files(folder: Path) -> PemFiles:
    """Return the files of the local authority."""
    return PemFiles(folder / "ca.pem", folder / "ca-key.pem")


def keep_authority(folder: Path, names: Sequence[str], now: float) -> Authority:
    """Return the local authority; create it when there is none, or when it is about to expire.

    Args:
        folder: For its files.
        names: Of this machine: a new authority may issue for them, even if they are public.
        now: Seconds since the epoch.

    Raises:
        CertificateError: Its files cannot be used.
        OSError: Its files cannot be written.
    """
    files = authority_files(folder)
    with locked(folder):
        if files.certificate.exists():
            authority = load_authority(files)
            if authority.certificate.not_valid_after_utc.timestamp() - now > LEAF_LIFE.total_seconds():
                return authority
        authority = make_authority(names, now)
        write_private(files.key_file, key_pem(authority.key))
        write_private(files.certificate, authority.certificate.public_bytes(Encoding.PEM))
        return authority


def load_authority(files: PemFiles) -> Authority:
    """Read the local authority.

    Raises:
        CertificateError: It cannot be used.
    """
    read_certificate(files)  # raises what is wrong
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = load_pem_private_key(files.key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateInvalidError(
            f"{files.key_file} is not the key of a local CA; remove {files.certificate.parent}, restart, and"
            " trust the new CA"
        )
    return Authority(certificate, key)


def make_authority(names: Sequence[str], now: float) -> Authority:
    """Create an authority for private names, and for the names of this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"ai-proxy local CA ({_title(names)})")
    builder = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(list(_permitted(names)), None), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Authority, names: Sequence[str], now: float) -> bytes:
    """Return a new certificate for these names and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = _leaf(_builder(_subject("ai-proxy"), issuer.subject, key.public_key(), now, LEAF_LIFE), names)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = builder.add_extension(identifier, critical=False).sign(authority.key, hashes.SHA256())
    return key_pem(key) + certificate.public_bytes(Encoding.PEM)


def self_signed(names: Sequence[str], now: float) -> bytes:
    """Return a self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("ai-proxy, temporary")
    builder = _leaf(_builder(subject, subject, key.public_key(), now, LEAF_LIFE), names)
    return key_pem(key) + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, life: timedelta
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - SKEW)
        .not_valid_after(moment + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(builder: x509.CertificateBuilder, names: Sequence[str]) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.SubjectAlternativeName(map(general_name, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # RFC 5280, ub-common-name


def _title(names: Sequence[str]) -> str:
    """Return the machine's name, for the title of its authority.

    >>> _title(("localhost", "127.0.0.1", "::1", "gpu", "gpu.local"))
    'gpu'
    """
    own = (name for name in names if name != "localhost" and isinstance(general_name(name), x509.DNSName))
    return next(own, "localhost")


def _permitted(names: Sequence[str]) -> Iterator[x509.GeneralName]:
    permitted = [
        *(x509.DNSName(domain) for domain in PRIVATE_DOMAINS),
        *(x509.IPAddress(network) for network in PRIVATE_NETWORKS),
    ]
    yield from permitted
    # A name without a dot also permits all names below it: nobody should call a machine `com`.
    for name in names:
        if not any(_within(name, subtree) for subtree in permitted):
            own = general_name(name)
            yield x509.IPAddress(ip_network(name)) if isinstance(own, x509.IPAddress) else own


def _within(name: str, subtree: x509.GeneralName) -> bool:
    """Tell whether a name lies in a subtree (RFC 5280, section 4.2.1.10).

    >>> _within("gpu.lan", x509.DNSName("lan")), _within("wlan", x509.DNSName("lan"))
    (True, False)
    >>> _within("10.1.2.3", x509.IPAddress(ip_network("10.0.0.0/8")))
    True
    """
    if isinstance(subtree, x509.DNSName):
        return name == subtree.value or name.endswith(f".{subtree.value}")
    is_address = isinstance(general_name(name), x509.IPAddress)
    networks = isinstance(subtree, x509.IPAddress) and subtree.value
    return is_address and isinstance(networks, IPv4Network | IPv6Network) and ip_address(name) in networks
