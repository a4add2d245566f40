"""Whether certificates are good, and for how long."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from ai_proxy.config.build import tls_settings
from ai_proxy.core.settings import TlsMode, TlsSettings
from ai_proxy.doctor.finding import Finding, ok, problem, warning
from ai_proxy.doctor.installation import Installation

SUBJECT = "certificate"
SOON = 14 * 86400.0
"""Seconds before its end from which on a certificate's is told."""


def judge_end(subject: str, name: str, starts: float, ends: float, now: float, fix: str) -> Finding:
    """Return how long a certificate is still good, or that it is not; moments in seconds since the epoch."""
    days = (ends - now) / 86400
    if ends <= now:
        return problem(subject, f"{name} expired {-days:.0f} days ago", fix)
    if starts > now:
        return problem(subject, f"{name} is not valid yet", "set this machine's clock right")
    if ends - now < min(SOON, (ends - starts) / 3):
        return warning(subject, f"{name} expires in {days:.1f} days", fix)
    return ok(subject, f"{name} is good for {days:.0f} days")


def judge_failures(name: str, tries: int, reason: str) -> Finding | None:
    """Return what is to be said of renewals that failed; None when none did."""
    if not tries:
        return None
    fix = "put the reason right: the next try is made by itself; docs/tls.md has more"
    return warning(SUBJECT, f"{name} could not be renewed, {tries} tries failed: {reason}", fix)


async def check_certificates(installation: Installation) -> Sequence[Finding]:
    """Look at what the configured mode serves."""
    settings = tls_settings(installation.config)
    if settings.mode is TlsMode.OFF:
        return [ok(SUBJECT, "none: TLS is off")]
    port = installation.config.server.port
    return await asyncio.to_thread(_findings, settings, installation.data / "tls", port, installation.now)


def _findings(settings: TlsSettings, folder: Path, port: int, now: float) -> Sequence[Finding]:
    match settings.mode:
        case TlsMode.FILES if settings.certificate is not None:
            fix = "put a new certificate in its place; it is taken up by itself"
            return [_look(settings.certificate, settings.key, now, fix)]
        case TlsMode.DEV_SELFSIGNED:
            fix = "start the proxy: it makes a new one by itself"
            return [_look_if_there(folder / f"server-{port}.pem", now, fix)]
        case _:
            return _public(settings, folder, now)


def _public(settings: TlsSettings, folder: Path, now: float) -> Sequence[Finding]:
    from ai_proxy.tls.acme import directory_folder, directory_url
    from ai_proxy.tls.renewal import Failures

    home = directory_folder(folder / "acme", directory_url(settings.acme))
    name = settings.acme.domains[0]
    try:
        failures = Failures(**json.loads((home / f"{name}.failures.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        failures = Failures()
    certificate = _look_if_there(home / f"{name}.pem", now, "see why it is not renewed: ai-proxy's log")
    said = judge_failures(name, failures.count, failures.reason)
    return [certificate, said] if said else [certificate]


def _look_if_there(path: Path, now: float, fix: str) -> Finding:
    return _look(path, None, now, fix) if path.exists() else ok(SUBJECT, "none yet; the first start gets one")


def _look(path: Path, key: Path | None, now: float, fix: str) -> Finding:
    from ai_proxy.tls.certificates import PemFiles, read_certificate
    from ai_proxy.tls.errors import CertificateError

    files = PemFiles(path, key)
    try:
        certificate = read_certificate(files)
    except CertificateError as error:
        return problem(SUBJECT, error.detail, "do as it says, then look again")
    if files.key_file.stat().st_mode & 0o007:
        text = f"everybody on this machine may read the private key {files.key_file}"
        return problem(SUBJECT, text, f"chmod o= {files.key_file}")
    return judge_end(SUBJECT, str(path), certificate.starts, certificate.ends, now, fix)
