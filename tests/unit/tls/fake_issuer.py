"""A public authority that does as it is told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ai_proxy.core.ports import Clock
from ai_proxy.tls.certificates import general_name
from ai_proxy.tls.errors import AcmeError


class FakeIssuer:
    """Issues at once, or fails.

    Attributes:
        asked: The names of each request.
        error: Raised in place of an answer; None to answer.
        chain: Answered in place of a certificate; None for a good one.
        life: Of what it issues.
    """

    def __init__(self, clock: Clock) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.error: AcmeError | None = None
        self.chain: bytes | None = None
        self.life = timedelta(days=90)
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())

    async def issue(self, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
        """Issue, or fail."""
        self.asked.append(tuple(names))
        if self.error:
            raise self.error
        return self.chain or self._certificate(names, key)

    def _certificate(self, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fake CA")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + self.life)
            .add_extension(x509.SubjectAlternativeName(map(general_name, names)), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)
