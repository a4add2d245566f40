"""The TLS context of the listeners, whose certificate can be replaced while they serve."""

import ssl
from hashlib import sha256

from ai_proxy.tls.certificates import PemFiles, read_file
from ai_proxy.tls.errors import CertificateInvalidError, CertificateUnreadableError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, section 4.2)."""


def server_context(files: PemFiles | None = None) -> ssl.SSLContext:
    """Return the context of a server.

    Raises:
        CertificateError: OpenSSL rejects the certificate or its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    if files is not None:
        _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: PemFiles) -> None:
    try:
        context.load_cert_chain(
            files.certificate, files.key, password=""
        )  # else OpenSSL prompts on the terminal
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise CertificateInvalidError(
            f"cannot use {files.certificate} with {files.key_file} for TLS: {reason}; make a new certificate"
            " with an ECDSA key, or an RSA key of at least 2048 bits"
        ) from error
    except OSError as error:
        raise CertificateUnreadableError(
            f"cannot read {files.certificate} or {files.key_file}: {error.strerror}"
        ) from error


class LiveContext:
    """A context whose certificate can be replaced at any time.

    The SNI callback of the listening context moves each handshake to the newest certificate's context: so
    a certificate and its key are replaced together. Established connections are not affected.

    Attributes:
        listening: The context for listeners.
    """

    def __init__(self, files: PemFiles) -> None:
        """Load the first certificate.

        Raises:
            CertificateError: It cannot be used.
        """
        self._content = _content(files)
        self._newest = server_context(files)
        self.listening = server_context()
        self.listening.sni_callback = self._switch

    def follow(self, files: PemFiles) -> bool:
        """Use the certificate in these files for new connections; return whether it has changed.

        Raises:
            CertificateError: It cannot be used; the old one stays in use.
        """
        content = _content(files)
        if content == self._content:
            return False
        self._newest = server_context(files)
        self._content = content  # read before loading: a later change is detected the next time
        return True

    def _switch(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Switch a handshake to the newest context; OpenSSL calls this even without SNI."""
        connection.context = self._newest


def _content(files: PemFiles) -> bytes:
    """Return a digest of the files: the key itself is not kept in memory."""
    digest = sha256()
    for path in (files.certificate, files.key_file):
        digest.update(read_file(path))
    return digest.digest()
