"""The data plane behind TLS: a stream through it outlives the certificate that it began with."""

import ssl

import trustme
from tests.integration.tls.ground import TlsServer
from tests.rigs.raw_backend import by_hand
from tests.rigs.raw_http import RawClient
from tests.rigs.wire_rig import wire_rig

from ai_proxy.tls.certificates import PemFiles, read_certificate
from ai_proxy.tls.context import LiveContext

REQUEST = b"GET /service/svc/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_streamed_response_goes_on_while_the_certificate_changes(
    files: PemFiles, ca: trustme.CA
) -> None:
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    live = LiveContext(files)
    async with wire_rig() as rig:
        rig.backend.script = by_hand
        port = await rig.gateway.listen("127.0.0.1", 0, live.listening)
        await rig.gateway.accept()
        server = TlsServer(port)
        streaming = await server.connect(trusting)
        client = RawClient(streaming.reader, streaming.writer)
        await client.send(REQUEST)
        backend = await rig.backend.connection()
        await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nbefore\r\n")
        await client.until(b"before")

        issued = ca.issue_cert("localhost")
        issued.private_key_pem.write_to_path(files.key_file)
        issued.cert_chain_pems[0].write_to_path(files.certificate)
        live.follow(files)
        shown = await server.serial(trusting)
        await backend.send(b"5\r\nafter\r\n0\r\n\r\n")

        assert await client.until(b"0\r\n\r\n") == b"\r\n5\r\nafter\r\n0\r\n\r\n"
        assert shown == read_certificate(files).serial != streaming.serial
        await streaming.close()
