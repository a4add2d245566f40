"""A key that is revoked ends what was begun with it, wherever that stands."""

import pytest
from tests.integration.gateway.models import CHAT, JSON, offer
from tests.integration.guard.conftest import House, bearer
from tests.rigs.raw_backend import by_hand
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import eventually

from ai_proxy.core.errors import ServiceStoppedError

SERVICE = b"/service/svc/x"
PATHS = [(SERVICE, b""), (CHAT, b'{"model": "svc"}')]


@pytest.mark.threat("an ordinary key", "access after its revocation")
@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_while_it_waits_for_a_service_to_load(house: House, path: bytes, body: bytes) -> None:
    plain, key = await house.key()
    house.rig.gateway.publish([offer()])
    house.rig.admission.hold("svc")
    client = await house.rig.client()
    await client.send(build_request(path, bearer(plain), JSON, body=body))
    await house.rig.admission.wait_for_waiting(1)

    await house.security.keys.revoke(key.id)
    response = await client.response()
    await house.rig.admission.wait_for_waiting(0)
    house.rig.admission.open("svc")

    assert response.error_code == b"invalid_api_key"
    assert await client.until_closed() == b""
    assert house.rig.backend.requests == []


async def test_while_it_waits_behind_a_request_of_another(house: House) -> None:
    """The one under way belongs to a good key, and is answered."""
    good, _ = await house.key()
    plain, key = await house.key()
    house.rig.admission.hold("svc")
    client = await house.rig.client()
    requests = [build_request(SERVICE, bearer(one)) for one in (good, plain, good)]
    await client.send(b"".join(requests))
    await house.rig.admission.wait_for_waiting(1)

    await house.security.keys.revoke(key.id)
    house.rig.admission.open("svc")

    assert (await client.response()).status == 200
    assert (await client.response()).error_code == b"invalid_api_key"
    assert len(house.rig.backend.requests) == 1


async def test_while_it_waits_behind_a_request_without_a_key(house: House) -> None:
    plain, key = await house.key()
    house.rig.management.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(b"/health") + build_request(SERVICE, bearer(plain), body=b"x") * 2)
    app = await house.rig.management.connection()
    await app.until(b"\r\n\r\n")

    await house.security.keys.revoke(key.id)
    await app.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    assert (await client.response()).status == 200
    assert (await client.response()).error_code == b"invalid_api_key"
    assert house.rig.backend.requests == []


@pytest.mark.threat("an ordinary key", "access after its revocation")
@pytest.mark.parametrize("kind", [b"application/octet-stream", b"application/json"])
async def test_while_its_body_is_on_its_way(house: House, kind: bytes) -> None:
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    head = (bearer(plain), b"Content-Type: " + kind, b"Content-Length: 1000")
    await client.send(build_request(SERVICE, *head, method=b"POST") + b"x" * 100)
    await eventually(lambda: any(c.current and c.current.received for c in house.rig.connections))

    await house.security.keys.revoke(key.id)

    assert (await client.response()).error_code == b"invalid_api_key"
    await client.send(b"x" * 900 + build_request(SERVICE))
    client.writer.write_eof()
    assert await client.until_closed() == b""


async def test_between_its_head_and_its_100(house: House) -> None:
    plain, key = await house.key()
    client = await house.rig.client()
    head = (bearer(plain), b"Expect: 100-continue", b"Content-Type: application/json", b"Content-Length: 9")
    await client.send(build_request(SERVICE, *head, method=b"POST"))
    assert (await client.response()).status == 100

    await house.security.keys.revoke(key.id)

    assert (await client.response()).error_code == b"invalid_api_key"


async def test_a_rotated_key_ends_when_its_time_comes_and_its_streams_do_not(house: House) -> None:
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(SERVICE, bearer(plain)))
    backend = await house.rig.backend.connection()
    await backend.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun")
    await client.until(b"begun")

    fresh, _ = await house.security.keys.rotate(key.id, overlap=0.0)
    await backend.send(b"ended")
    await client.until(b"ended")

    assert (await client.ask(build_request(SERVICE, bearer(plain)))).error_code == b"invalid_api_key"
    house.rig.admission.refuse("svc", ServiceStoppedError("reached"))
    response = await house.ask(SERVICE, bearer(fresh.text.encode()))
    assert response.status == 503
