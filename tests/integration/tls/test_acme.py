"""A public certificate from a real authority."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration.tls.conftest import fussy_pebble, need_pebble
from tests.integration.tls.ground import Connection, TlsServer, echo_server
from tests.integration.tls.pebble import Pebble, free_ports, pebble_with
from tests.integration.tls.redirecting import empty_gateway, served_certificates
from tests.rigs.wire_rig import eventually

from ai_proxy.core.settings import AcmeSettings, TlsMode, TlsSettings
from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.acme import AcmeIssuer
from ai_proxy.tls.certificates import PemFiles, read_certificate
from ai_proxy.tls.errors import AcmeError

DOMAINS = ("gpu.example.com", "llm.example.com")
HOUR = 3600.0
KEY = ec.generate_private_key(ec.SECP256R1())
MAC_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
OTHER_MAC_KEY = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"


@pytest.fixture(scope="session")
def eab_pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """An authority that requires an external account."""
    need_pebble()
    settings = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": MAC_KEY}}
    with pebble_with(tmp_path_factory.mktemp("pebble"), settings=settings) as pebble:
        yield pebble


def acme_settings(pebble: Pebble, **changes: object) -> AcmeSettings:
    settings = AcmeSettings(DOMAINS, "admin@example.com", pebble.directory, ca_file=pebble.ca_file)
    return replace(settings, **changes)  # type: ignore[arg-type]


def tls_settings(pebble: Pebble) -> TlsSettings:
    return TlsSettings(TlsMode.HTTPS_ACME, redirect_port=pebble.challenge_port, acme=acme_settings(pebble))


@asynccontextmanager
async def serving(settings: TlsSettings, folder: Path, clock: FakeClock) -> AsyncIterator[TlsServer]:
    async with served_certificates(settings, folder, "127.0.0.1", 443, clock) as context:
        assert context is not None
        async with echo_server(context) as server:
            yield server


def kept(folder: Path) -> PemFiles:
    (path,) = folder.glob("acme/*/gpu.example.com.pem")
    return PemFiles(path)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.glob("acme/*/*")}


def trusting(pebble: Pebble) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pebble.root)


async def test_issues_then_renews_with_streams_open_then_keeps_the_old_one_when_renewal_fails(
    tmp_path: Path, clock: FakeClock, log: list[str]
) -> None:
    need_pebble()
    with ExitStack() as authority:
        pebble = authority.enter_context(fussy_pebble(tmp_path))
        client = trusting(pebble)
        async with serving(tls_settings(pebble), tmp_path / "tls", clock) as server:
            streams = [await server.connect(client, name) for name in DOMAINS]
            first = streams[0].serial

            await clock.advance(17 * HOUR)
            second = await renewed(server, client, first, streams)

            assert read_certificate(kept(tmp_path / "tls")).serial == second
            assert pebble.log.read_text().count("HEAD /nonce-plz") > 2, "no nonce was refused"

            authority.close()
            await clock.advance(17 * HOUR)
            await eventually(lambda: any("no new TLS certificate for" in line for line in log))

            assert await server.serial(client, DOMAINS[0]) == second
            for stream in streams:
                assert await stream.echo(b"not dropped") == b"not dropped"
                await stream.close()
    told = next(line for line in log if "no new TLS certificate" in line)  # it may have been tried again
    assert ": [Errno 111] Connection refused" in told
    assert "the current one stays in use; it is valid until" in told


async def renewed(
    server: TlsServer, client: ssl.SSLContext, first: str, streams: Sequence[Connection]
) -> str:
    """Keep streams going until new connections are shown another certificate; return its number."""
    async with asyncio.timeout(60):
        while (serial := await server.serial(client, DOMAINS[0])) == first:
            for stream in streams:
                assert await stream.echo(b"not dropped") == b"not dropped"
    return serial


async def test_a_restart_asks_for_nothing(pebble: Pebble, tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tls_settings(pebble), tmp_path, clock):
        first = read_certificate(kept(tmp_path)).serial
    began = pebble.log.stat().st_size

    async with serving(tls_settings(pebble), tmp_path, clock) as server:
        assert await server.serial(trusting(pebble), DOMAINS[1]) == first

    assert pebble.log.stat().st_size == began
    assert modes(tmp_path) == {"account.pem": "0o600", "gpu.example.com.pem": "0o600"}


async def test_an_authority_that_is_away_does_not_keep_the_proxy_from_starting(
    pebble: Pebble, tmp_path: Path, clock: FakeClock, log: list[str]
) -> None:
    (nobody, plain) = free_ports(2)
    acme = acme_settings(pebble, directory=f"https://127.0.0.1:{nobody}/dir")
    settings = TlsSettings(TlsMode.HTTPS_ACME, redirect_port=plain, acme=acme)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE

    async with serving(settings, tmp_path, clock) as server:
        connection = await server.connect(blind)
        assert await connection.echo(b"x") == b"x"
        await connection.close()

    told = next(line for line in log if "no new TLS certificate" in line)  # it may have been tried again
    assert ": [Errno 111] Connection refused" in told
    assert "clients get a self-signed certificate" in told


async def test_the_authority_must_be_known(pebble: Pebble, tmp_path: Path) -> None:
    issuer = AcmeIssuer(acme_settings(pebble, ca_file=None), tmp_path, {})

    with pytest.raises(AcmeError, match=r"cannot reach .*: .*certificate verify failed"):
        await issuer.issue(DOMAINS, KEY)


async def test_challenges_that_nobody_answers_are_told_with_what_to_do(
    pebble: Pebble, tmp_path: Path
) -> None:
    challenges: dict[str, bytes] = {}
    issuer = AcmeIssuer(acme_settings(pebble), tmp_path, challenges)

    async with empty_gateway() as gateway:
        await gateway.redirect("127.0.0.1", pebble.challenge_port, 443, {})
        with pytest.raises(
            AcmeError, match=r"could not validate the domains: .*example\.com: .*404.*port 80 of each"
        ):
            await issuer.issue(DOMAINS, KEY)

    assert challenges == {}


@pytest.mark.parametrize(
    ("kid", "key", "refusal"),
    [
        ("kid-1", MAC_KEY, ""),
        ("kid-1", OTHER_MAC_KEY, "refused: "),
        ("", "", "set tls.acme.eab_kid and tls.acme.eab_hmac_key"),
    ],
    ids=["with its key", "with another key", "without"],
)
async def test_an_account_made_elsewhere_is_bound(
    eab_pebble: Pebble, tmp_path: Path, kid: str, key: str, refusal: str
) -> None:
    challenges: dict[str, bytes] = {}
    issuer = AcmeIssuer(acme_settings(eab_pebble, eab_kid=kid, eab_hmac_key=key), tmp_path, challenges)

    async with empty_gateway() as gateway:
        await gateway.redirect("127.0.0.1", eab_pebble.challenge_port, 443, challenges)
        if refusal:
            with pytest.raises(AcmeError, match=refusal):
                await issuer.issue(DOMAINS, KEY)
        else:
            assert (await issuer.issue(DOMAINS, KEY)).count(b"BEGIN CERTIFICATE") == 2
