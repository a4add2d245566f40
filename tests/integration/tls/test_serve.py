"""What listeners are given, in each mode, and what becomes of it with time."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from tests.integration.tls.ground import TlsServer, echo_server
from tests.integration.tls.pebble import free_ports
from tests.integration.tls.redirecting import served_certificates
from tests.rigs.wire_rig import eventually

from ai_proxy.core.settings import TlsMode, TlsSettings
from ai_proxy.platform.tasks import Background
from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.certificates import PemFiles, read_certificate
from ai_proxy.tls.context import LiveContext
from ai_proxy.tls.errors import CertificateError, CertificateKeyMismatchError
from ai_proxy.tls.serve import RETRY, CertificateKeeper, RedirectError

DAY = 86_400.0


def own(files: PemFiles) -> TlsSettings:
    return TlsSettings(TlsMode.FILES, files.certificate, files.key)


async def until_serial(server: TlsServer, trusting: ssl.SSLContext, serial: str) -> None:
    """Wait until new connections are shown a certificate."""
    async with asyncio.timeout(60):
        while await server.serial(trusting) != serial:
            pass


async def test_off_is_no_tls_and_leaves_no_trace(tmp_path: Path, clock: FakeClock) -> None:
    async with served_certificates(TlsSettings(), tmp_path / "tls", "127.0.0.1", 443, clock) as context:
        assert context is None
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_whoever_trusts_the_local_authority_trusts_the_server(
    tmp_path: Path, clock: FakeClock, name: str
) -> None:
    settings = TlsSettings(TlsMode.DEV_SELFSIGNED)
    async with served_certificates(settings, tmp_path, "127.0.0.1", 443, clock) as context:
        assert context is not None
        async with echo_server(context) as server:
            connection = await server.connect(ssl.create_default_context(cafile=tmp_path / "ca.pem"), name)
            assert await connection.echo(b"hello") == b"hello"
            await connection.close()

            with pytest.raises(ssl.SSLCertVerificationError):
                await server.connect(ssl.create_default_context(), name)


async def test_openssl_agrees(tmp_path: Path, clock: FakeClock) -> None:
    settings = TlsSettings(TlsMode.DEV_SELFSIGNED)
    async with served_certificates(settings, tmp_path, "127.0.0.1", 443, clock) as context:
        assert context is not None
        async with echo_server(context) as server:
            address = f"127.0.0.1:{server.port}"
            options = ["-verify_return_error", "-verify_hostname", "localhost", "-x509_strict", "-brief"]
            client = await asyncio.create_subprocess_exec(
                *("openssl", "s_client", "-connect", address, "-CAfile", str(tmp_path / "ca.pem"), *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await client.communicate()

    assert b"Verification: OK" in output
    assert client.returncode == 0


async def test_the_local_certificate_is_renewed_while_a_stream_goes_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = TlsSettings(TlsMode.DEV_SELFSIGNED)
    async with served_certificates(settings, tmp_path, "127.0.0.1", 443, clock) as context:
        assert context is not None
        trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        trusting.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME: the clock is ahead
        async with echo_server(context) as server:
            stream = await server.connect(trusting)

            await clock.advance(61 * DAY)
            async with asyncio.timeout(60):
                while (second := await server.serial(trusting)) == stream.serial:
                    await clock.advance(3600)

            assert second == read_certificate(PemFiles(tmp_path / "server-443.pem")).serial
            assert await stream.echo(b"still here") == b"still here"
            await stream.close()


async def test_own_files_are_read_again_when_they_change(
    files: PemFiles, ca: trustme.CA, tmp_path: Path, clock: FakeClock, log: list[str]
) -> None:
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with served_certificates(own(files), tmp_path / "tls", "127.0.0.1", 443, clock) as context:
        assert context is not None
        async with echo_server(context) as server:
            stream = await server.connect(trusting)
            issued = ca.issue_cert("localhost")
            issued.private_key_pem.write_to_path(files.key_file)
            issued.cert_chain_pems[0].write_to_path(files.certificate)
            second = read_certificate(files).serial

            await clock.advance(10)
            await until_serial(server, trusting, second)

            assert await stream.echo(b"still here") == b"still here"
            await stream.close()
    assert len([line for line in log if line.startswith("TLS with a certificate for localhost")]) == 2


async def test_files_that_became_bad_change_nothing_and_are_told_once(
    files: PemFiles, ca: trustme.CA, tmp_path: Path, clock: FakeClock, log: list[str]
) -> None:
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    first = read_certificate(files).serial
    async with served_certificates(own(files), tmp_path / "tls", "127.0.0.1", 443, clock) as context:
        assert context is not None
        async with echo_server(context) as server:
            ca.issue_cert("localhost").private_key_pem.write_to_path(files.key_file)

            await clock.advance(10)
            await eventually(lambda: any("does not belong" in line for line in log))
            await clock.advance(60)
            await asyncio.to_thread(lambda: None)

            assert await server.serial(trusting) == first
    (told,) = [
        line for line in log if "cannot renew the TLS certificate, the current one stays in use" in line
    ]
    assert "the private key in" in told


class FlakySource:
    """Raises what no source may, once."""

    def __init__(self, files: PemFiles) -> None:
        self.files = files
        self.renewals = 0

    async def renew(self) -> float:
        self.renewals += 1
        if self.renewals == 1:
            raise KeyError("no such certificate")
        return 10.0


async def test_renewals_go_on_after_an_unexpected_failure(files: PemFiles, clock: FakeClock) -> None:
    source, background = FlakySource(files), Background(clock.sleep, clock.now, clock.wall)
    keeper = CertificateKeeper(source, LiveContext(files), clock, pause=10.0)

    background.run(keeper.run, "renewal")
    await clock.advance(10.0)
    assert background.restarts["renewal"].waiting
    await clock.advance(1.0 + RETRY)

    assert source.renewals == 2
    assert background.restarts["renewal"].count == 1
    await background.close()


async def test_bad_files_are_refused_at_the_start(
    files: PemFiles, ca: trustme.CA, tmp_path: Path, clock: FakeClock
) -> None:
    ca.issue_cert("localhost").private_key_pem.write_to_path(files.key_file)

    with pytest.raises(CertificateKeyMismatchError):
        async with served_certificates(own(files), tmp_path, "127.0.0.1", 443, clock):
            pass


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (TlsSettings(TlsMode.FILES), r"tls\.certificate"),
        (TlsSettings(TlsMode.HTTPS_ACME, redirect_port=0), r"tls\.acme\.domains"),
    ],
)
async def test_what_a_mode_needs_is_said(
    settings: TlsSettings, missing: str, tmp_path: Path, clock: FakeClock
) -> None:
    with pytest.raises(CertificateError, match=missing):
        async with served_certificates(settings, tmp_path, "127.0.0.1", 443, clock):
            pass


async def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    settings = TlsSettings(TlsMode.DEV_SELFSIGNED)

    with pytest.raises(CertificateError, match=r"cannot write to .*: Not a directory"):
        async with served_certificates(settings, tmp_path / "file" / "tls", "127.0.0.1", 443, clock):
            pass


async def test_plain_http_is_sent_on_where_it_is_wanted(
    files: PemFiles, tmp_path: Path, clock: FakeClock
) -> None:
    (port,) = free_ports(1)
    settings = TlsSettings(TlsMode.FILES, files.certificate, files.key, redirect_port=port)
    async with served_certificates(settings, tmp_path, "127.0.0.1", 8443, clock):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: gpu\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert b"location: https://gpu:8443/x\r\n" in answer


async def test_a_port_for_plain_http_that_is_taken_is_told(
    files: PemFiles, tmp_path: Path, clock: FakeClock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = TlsSettings(TlsMode.FILES, files.certificate, files.key, redirect_port=port)

        with pytest.raises(RedirectError, match=rf"cannot listen on 127\.0\.0\.1:{port} for plain HTTP"):
            async with served_certificates(settings, tmp_path, "127.0.0.1", 443, clock):
                pass
