"""Errors of certificates.

CertificateError                     certificate_unusable
├── CertificateUnreadableError       certificate_unreadable: a file is missing, or permission is denied
├── CertificateInvalidError          certificate_invalid: no PEM, or unusable for TLS
├── CertificateKeyMismatchError      certificate_key_mismatch
├── CertificateDateError             certificate_out_of_date: expired, or not valid yet
└── AcmeError                        acme_failed: the certificate authority issued none
"""

from typing import ClassVar

from ai_proxy.core.errors import ProxyError


class CertificateError(ProxyError):
    """A certificate cannot be used; the message says why and what to do."""

    code, title = "certificate_unusable", "Cannot use the certificate"


class CertificateUnreadableError(CertificateError):
    """A file is missing, or permission is denied."""

    code, title = "certificate_unreadable", "Cannot read the certificate"


class CertificateInvalidError(CertificateError):
    """A file is no PEM, or unusable for TLS."""

    code, title = "certificate_invalid", "Certificate is invalid"


class CertificateKeyMismatchError(CertificateError):
    """The private key belongs to another certificate."""

    code, title = "certificate_key_mismatch", "Certificate and key do not match"


class CertificateDateError(CertificateError):
    """Expired, or not valid yet."""

    code, title = "certificate_out_of_date", "Certificate is out of date"


class AcmeError(CertificateError):
    """The certificate authority issued no certificate.

    Attributes:
        limited: Whether the authority refused because of its rate limits.
    """

    code: ClassVar[str] = "acme_failed"
    title: ClassVar[str] = "No certificate issued"

    def __init__(self, detail: str, *, limited: bool = False) -> None:
        super().__init__(detail)
        self.limited = limited
