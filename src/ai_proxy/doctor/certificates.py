"""Check of the served certificates."""

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
"""Seconds before its expiry from which on a certificate is reported."""


def classify_end(subject: str, name: str, starts: float, ends: float, now: float, fix: str) -> Finding:
    """Return how long a certificate is still valid, if at all; times in seconds since the epoch."""
    days = (ends - now) / 86400
    if ends <= now:
        return problem(subject, f"{name} expired {-days:.0f} days ago", fix)
    if starts > now:
        return problem(subject, f"{name} is not valid yet", "set this machine's clock")
    if ends - now < min(SOON, (ends - starts) / 3):
        return warning(subject, f"{name} expires in {days:.1f} days", fix)
    return ok(subject, f"{name} is valid for {days:.0f} days")


def classify_failures(name: str, tries: int, reason: str) -> Finding | None:
    """Return a finding about failed renewals; None when none failed."""
    if not tries:
        return None
    fix = "fix the cause; ai-proxy tries again on its own (see docs/tls.md)"
    return warning(SUBJECT, f"{name} was not renewed, {tries} attempts failed: {reason}", fix)


async def check_certificates(installation: Installation) -> Sequence[Finding]:
    """Check the certificate that the configured mode serves."""
    settings = tls_settings(installation.config)
    if settings.mode is TlsMode.OFF:
        return [ok(SUBJECT, "none: TLS is off")]
    port = installation.config.server.port
    return await asyncio.to_thread(_findings, settings, installation.data / "tls", port, installation.now)


def _findings(settings: TlsSettings, folder: Path, port: int, now: float) -> Sequence[Finding]:
    match settings.mode:
        case TlsMode.FILES if settings.certificate is not None:
            fix = "replace the file; ai-proxy reloads it"
            return [_check_file(settings.certificate, settings.key or settings.certificate, now, fix)]
        case TlsMode.DEV_SELFSIGNED:
            fix = "start ai-proxy, which issues a new one"
            return [_check_file(folder / f"server-{port}.pem", None, now, fix)]
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
    fix = "read ai-proxy's log to see why it is not renewed"
    certificate = _check_file(home / f"{name}.pem", None, now, fix)
    failed = classify_failures(name, failures.count, failures.reason)
    return [certificate, failed] if failed else [certificate]


def _check_file(path: Path, key: Path | None, now: float, fix: str) -> Finding:
    from ai_proxy.tls.certificates import PemFiles, read_certificate
    from ai_proxy.tls.errors import CertificateError

    if key is None and not path.exists():
        return ok(SUBJECT, "none yet; the first start obtains one")
    files = PemFiles(path, key)
    try:
        certificate = read_certificate(files)
    except CertificateError as error:
        return problem(SUBJECT, error.detail, "correct it, then run 'ai-proxy check' again")
    if files.key_file.stat().st_mode & 0o007:
        text = f"any user of this machine can read the private key {files.key_file}"
        return problem(SUBJECT, text, f"chmod o= {files.key_file}")
    return classify_end(SUBJECT, str(path), certificate.starts, certificate.ends, now, fix)
