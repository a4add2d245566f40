"""What listeners speak TLS with, and its certificate's change while they do."""

import ssl
from hashlib import sha256

from ai_proxy.tls.certificates import PemFiles, read_file
from ai_proxy.tls.errors import CertificateInvalidError, CertificateUnreadableError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, section 4.2)."""


def server_context(files: PemFiles | None = None) -> ssl.SSLContext:
    """Return what a server speaks TLS with.

    Raises:
        CertificateError: OpenSSL does not take the certificate or its key.
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
        context.load_cert_chain(files.certificate, files.key, password="")  # else OpenSSL asks the terminal
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise CertificateInvalidError(
            f"{files.certificate} with {files.key_file} cannot be used for TLS: {reason}; make a new pair,"
            " with an ECDSA key, or an RSA key of 2048 bits or more"
        ) from error
    except OSError as error:
        raise CertificateUnreadableError(
            f"{files.certificate} or {files.key_file} cannot be read: {error.strerror}"
        ) from error


class LiveContext:
    """A context whose certificate can be replaced at any moment.

    Each handshake is passed on to the context of the newest certificate, so that a certificate and its key
    are replaced together or not at all; connections that stand keep the keys they agreed upon.

    Attributes:
        listening: For listeners.
    """

    def __init__(self, files: PemFiles) -> None:
        """Begin with a certificate.

        Raises:
            CertificateError: It cannot be used.
        """
        self._content = _content(files)
        self._newest = server_context(files)
        self.listening = server_context()
        self.listening.sni_callback = self._pass_on

    def follow(self, files: PemFiles) -> bool:
        """Give new connections the certificate that is in these files now; tell whether it is another one.

        Raises:
            CertificateError: It cannot be used; the last one stays.
        """
        content = _content(files)
        if content == self._content:
            return False
        self._newest = server_context(files)
        self._content = content  # as it was before: what changed meanwhile is seen the next time
        return True

    def _pass_on(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Choose the context of a handshake; OpenSSL asks also when the client names no server."""
        connection.context = self._newest


def _content(files: PemFiles) -> bytes:
    """Return what stands for the content of the files, without keeping the key."""
    digest = sha256()
    for path in (files.certificate, files.key_file):
        digest.update(read_file(path))
    return digest.digest()
