"""What can be wrong with certificates.

CertificateError                     certificate_unusable
├── CertificateUnreadableError       certificate_unreadable: a file is missing, or may not be read
├── CertificateInvalidError          certificate_invalid: not PEM, or not what TLS can use
├── CertificateKeyMismatchError      certificate_key_mismatch
├── CertificateDateError             certificate_out_of_date: expired, or not valid yet
└── AcmeError                        acme_failed: none could be had from the certificate authority
"""

from typing import ClassVar

from ai_proxy.core.errors import ProxyError


class CertificateError(ProxyError):
    """A certificate cannot be used; the message says why and what to do."""

    code, title = "certificate_unusable", "Certificate cannot be used"


class CertificateUnreadableError(CertificateError):
    """A file is missing, or may not be read."""

    code, title = "certificate_unreadable", "Certificate cannot be read"


class CertificateInvalidError(CertificateError):
    """A file does not hold what it should, or what TLS can use."""

    code, title = "certificate_invalid", "Certificate is invalid"


class CertificateKeyMismatchError(CertificateError):
    """The private key belongs to another certificate."""

    code, title = "certificate_key_mismatch", "Certificate and key do not match"


class CertificateDateError(CertificateError):
    """Expired, or not valid yet."""

    code, title = "certificate_out_of_date", "Certificate is out of date"


class AcmeError(CertificateError):
    """The certificate authority gave no certificate.

    Attributes:
        limited: Whether it was because of too many tries: then only time helps.
    """

    code: ClassVar[str] = "acme_failed"
    title: ClassVar[str] = "No certificate could be had"

    def __init__(self, detail: str, *, limited: bool = False) -> None:
        super().__init__(detail)
        self.limited = limited
