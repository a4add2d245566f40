"""Which TLS is spoken, and how the certificate changes while it is."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme
from tests.integration.tls.ground import echo_server

from ai_proxy.tls.certificates import PemFiles, read_certificate
from ai_proxy.tls.context import LiveContext
from ai_proxy.tls.errors import CertificateInvalidError


@pytest.fixture
def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def replace(files: PemFiles, ca: trustme.CA) -> str:
    """Put another certificate in the place of the first; return its number."""
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(files.key_file)
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    return read_certificate(files).serial


async def test_an_open_stream_goes_on_and_new_connections_get_the_new_certificate(
    files: PemFiles, ca: trustme.CA, trusting: ssl.SSLContext
) -> None:
    first = read_certificate(files).serial
    live = LiveContext(files)
    async with echo_server(live.listening) as server:
        stream = await server.connect(trusting)
        assert stream.serial == first
        assert await stream.echo(b"before") == b"before"

        second = replace(files, ca)
        assert live.follow(files)

        assert await stream.echo(b"x" * 1_000_000) == b"x" * 1_000_000
        assert await server.serial(trusting) == second != first
        await stream.close()


async def test_certificates_may_change_while_clients_come_and_go(
    files: PemFiles, ca: trustme.CA, trusting: ssl.SSLContext
) -> None:
    live = LiveContext(files)
    async with echo_server(live.listening) as server:

        async def come_and_go() -> None:
            for number in range(8):
                connection = await server.connect(trusting)
                assert await connection.echo(b"%d" % number) == b"%d" % number
                await connection.close()

        clients = asyncio.gather(*(come_and_go() for _ in range(3)))
        while not clients.done():
            replace(files, ca)
            live.follow(files)
            await asyncio.sleep(0)
        await clients


async def test_a_session_can_be_resumed_after_the_change(
    files: PemFiles, ca: trustme.CA, trusting: ssl.SSLContext
) -> None:
    live = LiveContext(files)
    async with echo_server(live.listening) as server:
        first = await server.connect(trusting)
        await first.echo(b"x")  # tickets come with the first bytes
        session = first.tls.session
        replace(files, ca)
        live.follow(files)
        second = await server.connect(trusting)
        await second.echo(b"y")
        assert session is not None
        await first.close()
        await second.close()


async def test_a_client_that_names_no_server_is_served(files: PemFiles, ca: trustme.CA) -> None:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    ca.configure_trust(blind)
    live = LiveContext(files)
    async with echo_server(live.listening) as server:
        second = replace(files, ca)
        live.follow(files)

        assert await server.serial(blind, "") == second


async def test_what_cannot_be_used_changes_nothing(
    files: PemFiles, ca: trustme.CA, trusting: ssl.SSLContext
) -> None:
    first = read_certificate(files).serial
    live = LiveContext(files)
    async with echo_server(live.listening) as server:
        ca.issue_cert("localhost").private_key_pem.write_to_path(files.key_file)  # of another certificate

        with pytest.raises(CertificateInvalidError, match="for TLS: key values mismatch"):
            live.follow(files)

        assert await server.serial(trusting) == first


def test_the_same_content_is_no_change(files: PemFiles) -> None:
    live = LiveContext(files)
    files.certificate.touch()

    assert not live.follow(files)


@pytest.mark.threat("somebody on the network", "prompts and keys over old or weak TLS")
def test_a_key_that_is_too_weak_is_refused_with_what_to_do(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x"]
    out = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command, *out], check=True, capture_output=True)

    with pytest.raises(CertificateInvalidError, match="ee key too small; make a new certificate"):
        LiveContext(PemFiles(tmp_path / "cert.pem", tmp_path / "key.pem"))


@pytest.mark.threat("somebody on the network", "prompts and keys over old or weak TLS")
@pytest.mark.parametrize(
    ("options", "works"),
    [
        (["-tls1_3"], True),
        (["-tls1_2"], True),
        (["-tls1_2", "-cipher", "ECDHE+CHACHA20"], True),
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
        (["-tls1_2", "-cipher", "AES128-SHA"], False),
        (["-tls1_2", "-cipher", "ECDHE+AES128+SHA256:!AESGCM"], False),
        (["-tls1_2", "-cipher", "DHE"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
async def test_openssl_negotiates_no_old_protocol(files: PemFiles, options: list[str], works: bool) -> None:
    async with echo_server(LiveContext(files).listening) as server:
        client = await asyncio.create_subprocess_exec(
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{server.port}",
            "-brief",
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await client.communicate()

    assert (b"CONNECTION ESTABLISHED" in output) == works, output


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
async def test_http_1_1_is_what_is_spoken(
    files: PemFiles, trusting: ssl.SSLContext, offered: list[str], chosen: str | None
) -> None:
    if offered:
        trusting.set_alpn_protocols(offered)
    async with echo_server(LiveContext(files).listening) as server:
        connection = await server.connect(trusting)

        assert connection.tls.selected_alpn_protocol() == chosen
        await connection.close()


async def test_plain_http_on_the_port_of_https_harms_nobody(
    files: PemFiles, trusting: ssl.SSLContext
) -> None:
    async with echo_server(LiveContext(files).listening) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: gpu\r\n\r\n")
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()

        assert await server.serial(trusting)
