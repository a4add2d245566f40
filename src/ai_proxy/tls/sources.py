"""Sources of certificates: the user's own files, the local authority, or a public one."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from loguru import logger

from ai_proxy.core.ports import Clock
from ai_proxy.tls.authority import Authority, authority_files, issue, keep_authority, self_signed
from ai_proxy.tls.certificates import (
    Certificate,
    PemFiles,
    check_dates,
    day,
    describe,
    key_pem,
    read_certificate,
)
from ai_proxy.tls.errors import AcmeError, CertificateError
from ai_proxy.tls.files import write_private
from ai_proxy.tls.names import machine_names
from ai_proxy.tls.renewal import Failures, after_failure, renewal_pause

FILES_INTERVAL = 10.0
"""Seconds between two checks of files that the user replaces."""
LONGEST_INTERVAL = 3600.0
"""Longest time between two checks: clocks are set, machines sleep, addresses change."""
SHORTEST_INTERVAL = 60.0
"""Shortest time between two certificates of a public authority, however short their validity."""


class Source(Protocol):
    """Keeps a certificate usable."""

    @property
    def files(self) -> PemFiles:
        """The files of the certificate to use now."""

    async def renew(self) -> float:
        """Renew the certificate if it is due; return the seconds until the next check.

        Raises:
            CertificateError: They cannot be used.
            OSError: They cannot be written.
        """


class Issuer(Protocol):
    """A public certificate authority."""

    async def issue(self, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return a certificate for the names with its intermediates, as PEM.

        Raises:
            AcmeError: The authority issues none now.
        """


class OwnFiles:
    """Files that the user provides and replaces."""

    def __init__(self, files: PemFiles, clock: Clock) -> None:
        self.files = files
        self._clock = clock

    async def renew(self) -> float:
        """Check the files."""
        certificate = await asyncio.to_thread(read_certificate, self.files)
        check_dates(certificate, self.files.certificate, self._clock.wall())
        return FILES_INTERVAL


class LocalCertificate:
    """A certificate of the local authority, for all names and addresses of this machine.

    Args:
        folder: Of the authority.
        path: Of the certificate and its key.
        names: Additional names.
        clock: Tells the time.
    """

    def __init__(self, folder: Path, path: Path, names: Sequence[str], clock: Clock) -> None:
        self.files = PemFiles(path)
        self._folder = folder
        self._names = tuple(names)
        self._clock = clock
        self._left_out: frozenset[str] = frozenset()

    async def renew(self) -> float:
        """Issue a new one when the old one is about to expire, or when the machine's names have changed."""
        await asyncio.to_thread(self._renew, self._clock.wall())
        return LONGEST_INTERVAL

    def _renew(self, now: float) -> None:
        known = machine_names(self._names)
        authority = keep_authority(self._folder, known, now)
        names = authority.allowed(known)
        self._log_left_out(frozenset(known) - frozenset(names))
        if renewal_pause(_issued_by(authority, self.files), names, now) == 0:
            write_private(self.files.certificate, issue(authority, names, now))

    def _log_left_out(self, names: frozenset[str]) -> None:
        if names - self._left_out:
            logger.warning(
                "the local CA cannot issue certificates for {}: it was made without these public names; to"
                " include them, remove {}, restart, and trust the new CA",
                ", ".join(sorted(names)),
                authority_files(self._folder).certificate,
            )
        self._left_out = names


def _issued_by(authority: Authority, files: PemFiles) -> Certificate | None:
    """Return the certificate in the files, if it is usable and this authority issued it."""
    try:
        certificate = read_certificate(files)
        leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        leaf.verify_directly_issued_by(authority.certificate)
    except (CertificateError, InvalidSignature, ValueError):
        return None
    return certificate


class PublicCertificate:
    """A certificate of a public authority, renewed long before it expires.

    Before the first one is issued, a self-signed certificate takes its place, so that the proxy serves.
    Failures are kept in a file, so that a proxy that restarts in a loop respects the authority's rate limits.

    Args:
        issuer: The authority.
        names: The domains.
        folder: For certificates, named after the first domain.
        clock: Tells the time.
    """

    def __init__(self, issuer: Issuer, names: Sequence[str], folder: Path, clock: Clock) -> None:
        self._issuer = issuer
        self._names = tuple(names)
        self._clock = clock
        self._certificate = folder / f"{names[0]}.pem"
        self._temporary = folder / f"{names[0]}.temporary.pem"
        self._failures = folder / f"{names[0]}.failures.json"

    @property
    def files(self) -> PemFiles:
        """The files of the certificate to use now."""
        return PemFiles(self._temporary if self._kept() is None else self._certificate)

    async def renew(self) -> float:
        """Request a new certificate if it is due; when that fails, the current one stays in use."""
        if self._pause() == 0:
            await self._try()
        if self._kept() is None:
            self._stand_in()
        if (failures := self._read_failures()).count:
            self._log(failures)
        return min(max(self._pause(), SHORTEST_INTERVAL), LONGEST_INTERVAL)

    def _pause(self) -> float:
        return renewal_pause(self._kept(), self._names, self._clock.wall(), self._read_failures())

    async def _try(self) -> None:
        before = self._read_failures()
        # An interrupted attempt counts as failed, and nothing is requested that cannot be stored.
        self._write_failures(
            after_failure(before, self._clock.wall(), "the proxy was stopped during the attempt")
        )
        try:
            await self._renew()
        except AcmeError as error:
            self._write_failures(
                after_failure(before, self._clock.wall(), error.detail, limited=error.limited)
            )
        else:
            self._failures.unlink(missing_ok=True)

    async def _renew(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = await self._issuer.issue(self._names, key)
        found = _described(chain)
        if missing := frozenset(self._names) - found.names:
            raise AcmeError(f"the issued certificate lacks {', '.join(sorted(missing))}")
        await asyncio.to_thread(write_private, self._certificate, key_pem(key) + chain)

    def _log(self, failures: Failures) -> None:
        kept = self._kept()
        logger.error(
            "no new TLS certificate for {}: {}; failed attempts: {}, the next one is on {}; {}",
            ", ".join(self._names),
            failures.reason,
            failures.count,
            day(failures.again),
            f"the current one stays in use; it is valid until {day(kept.ends)}"
            if kept
            else "until then clients get a self-signed certificate; to retry at once, remove"
            f" {self._failures} and restart",
        )

    def _stand_in(self) -> None:
        now = self._clock.wall()
        if renewal_pause(_read_or_none(self._temporary), self._names, now) == 0:
            write_private(self._temporary, self_signed(self._names, now))

    def _kept(self) -> Certificate | None:
        return _read_or_none(self._certificate)

    def _read_failures(self) -> Failures:
        try:
            return Failures(**json.loads(self._failures.read_bytes()))
        except (OSError, ValueError, TypeError):
            return Failures()

    def _write_failures(self, failures: Failures) -> None:
        write_private(self._failures, json.dumps(asdict(failures)).encode())


def _described(chain: bytes) -> Certificate:
    try:
        return describe(x509.load_pem_x509_certificate(chain))
    except ValueError as error:
        raise AcmeError("the authority did not issue a PEM certificate") from error


def _read_or_none(path: Path) -> Certificate | None:
    try:
        return read_certificate(PemFiles(path))
    except CertificateError:
        return None
