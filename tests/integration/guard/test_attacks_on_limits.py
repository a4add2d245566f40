"""Ways around limits, and floods: refusals are cheap and bounded, and others are served meanwhile."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.guard.conftest import House, bearer, guarded
from tests.rigs.raw_backend import by_hand, echo
from tests.rigs.raw_http import RawClient, build_request
from tests.rigs.wire_rig import eventually
from tests.unit.security.broken import Fault, FaultyAudit

from ai_proxy.core.errors import StoreFullError
from ai_proxy.core.keys import ApiKey, Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.settings import Limits
from ai_proxy.security.audit import MAX_PENDING, REFUSALS, AuditLog
from ai_proxy.security.limiter import MAX_METERS

SERVICE = b"/service/svc/x"
BURST = 3
FEW = {"rpm": 1, "burst": BURST}
WAVE = 1000
"""Requests of one connection of a flood."""
PIPELINED = 50


def wrong(number: int) -> bytes:
    return b"aip_%012x_%b" % (number, b"x" * 49)


def via(address: str) -> bytes:
    return b"X-Forwarded-For: " + address.encode()


async def statuses(house: House, *requests: bytes) -> list[int]:
    """Send each on a connection of its own."""
    return [(await house.rig.ask(request)).status for request in requests]


def limited(given: list[int]) -> bool:
    """Tell whether as many were let through as may be, and no more."""
    return [status == 429 for status in given] == [place >= BURST for place in range(len(given))]


@pytest.mark.threat("a limited key", "more requests than its limit")
@pytest.mark.parametrize("keyed", [True, False])
async def test_a_limit_of_an_address_holds_for_every_path_and_method(house: House, keyed: bool) -> None:
    key, _ = await house.key() if keyed else (b"", None)
    await house.policy(per_ip=FEW)
    who = bearer(key) if keyed else b"A: b"

    given = await statuses(
        house,
        build_request(SERVICE, who),
        build_request(b"/nowhere", who),
        build_request(b"/health", b"Connection: close"),
        build_request(SERVICE, who, method=b"OPTIONS"),
        build_request(SERVICE, who, b"X-Request-ID: new", b"User-Agent: another"),
        build_request(b"/v1/models", who, method=b"DELETE"),
        b"GET /service/svc/x HTTP/1.0\r\n%b\r\n\r\n" % who,
        build_request(SERVICE, who, b"Connection: Upgrade", b"Upgrade: websocket"),
        build_request(SERVICE, who, b"Expect: 100-continue", body=b"x"),
        build_request(b"/health"),
    )

    assert limited(given)


async def test_another_key_is_another_allowance_but_the_same_address(house: House) -> None:
    keys = [(await house.key())[0] for _ in range(5)]
    await house.policy(per_ip=FEW)

    assert limited(await statuses(house, *(build_request(SERVICE, bearer(key)) for key in keys)))


@pytest.mark.threat("a limited key", "more requests than its limit")
async def test_a_key_has_one_allowance_wherever_it_is_used_and_in_whatever_header(house: House) -> None:
    key, _ = await house.key(Scope.INFERENCE, Scope.ADMIN, allowance=Allowance(rpm=1, burst=BURST))
    await house.policy(trusted_proxies=["127.0.0.0/8"])

    given = await statuses(
        house,
        build_request(SERVICE, bearer(key), via("192.0.2.1")),
        build_request(SERVICE, b"X-Api-Key: " + key, via("192.0.2.2")),
        build_request(b"/v1/models", b"api-key: " + key),
        build_request(SERVICE, bearer(key), via("2001:db8::1")),
        build_request(b"/api/v1/keys", bearer(key)),
    )

    assert limited(given)


async def test_no_change_elsewhere_gives_a_key_a_fresh_allowance(house: House) -> None:
    plain, _ = await house.key(allowance=Allowance(rpm=1, burst=BURST))
    requests = [build_request(SERVICE, bearer(plain))] * 5
    assert limited(await statuses(house, *requests))

    await house.key()
    await house.policy(max_request_mb=5)
    await house.security.keys.load()

    assert await statuses(house, requests[0]) == [429]


@pytest.mark.threat("a limited key", "more requests than its limit")
async def test_no_connection_has_an_allowance_of_its_own(house: House) -> None:
    await house.policy(per_ip=FEW)
    clients = [await house.rig.client() for _ in range(20)]

    for client in clients:
        await client.send(build_request() * 3)
    given = [(await client.response()).status for client in clients for _ in range(3)]

    assert sorted(given) == [200] * BURST + [429] * (len(given) - BURST)


@pytest.mark.parametrize("repeated", [True, False])
async def test_a_kept_connection_meets_the_limit_with_every_request(house: House, repeated: bool) -> None:
    await house.policy(per_ip=FEW)
    client = await house.rig.client()

    given = [
        (await client.ask(build_request(SERVICE, b"N: %d" % (0 if repeated else n)))).status for n in range(6)
    ]

    assert limited(given)


@pytest.mark.threat("a limited key", "more requests than its limit")
async def test_a_cancelled_request_counts_once_it_was_forwarded(house: House) -> None:
    await house.policy(per_ip=FEW)
    house.rig.backend.script = by_hand
    for number in range(BURST):
        client = await house.rig.client()
        await client.send(build_request())
        await house.rig.backend.connection(number + 1)
        client.reset()
    await eventually(lambda: not house.rig.connections)

    assert (await house.ask()).status == 429


@pytest.mark.threat("a limited key", "more requests than its limit")
async def test_a_tunnel_takes_the_place_of_a_request_for_as_long_as_it_stands(house: House) -> None:
    plain, _ = await house.key(allowance=Allowance(concurrency=1))
    house.rig.backend.script = by_hand
    upgrade = build_request(SERVICE, bearer(plain), b"Connection: Upgrade", b"Upgrade: websocket")
    client = await house.rig.client()
    await client.send(upgrade)
    backend = await house.rig.backend.connection()
    await backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    await client.until(b"\r\n\r\n")

    assert await statuses(house, upgrade, build_request(SERVICE, bearer(plain))) == [429, 429]
    client.reset()
    await eventually(lambda: house.rig.admission.outcomes)
    house.rig.backend.script = echo
    assert await statuses(house, build_request(SERVICE, bearer(plain))) == [200]


async def test_a_network_of_ipv6_is_one_address_and_its_neighbours_are_not(house: House) -> None:
    await house.policy(per_ip=FEW, trusted_proxies=["127.0.0.1"])
    network = ["2001:db8::1", "2001:db8::2", "[2001:db8::3]:80", "2001:db8:0:0:ffff::", "2001:DB8::1%25eth0"]

    same = await statuses(house, *(build_request(SERVICE, via(address)) for address in network[:4]))
    mapped = ["::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1:80", "[::ffff:192.0.2.1]:9", "::FFFF:C000:201"]
    v4 = await statuses(house, *(build_request(SERVICE, via(address)) for address in mapped))

    assert limited(same)
    assert limited(v4)
    assert await statuses(house, build_request(SERVICE, via("2001:db8:0:1::1"))) == [200]


SPOOFS = [
    (b"X-Forwarded-For: 10.1.2.3, 192.0.2.9",),
    (b"X-Forwarded-For: 10.1.2.3", b"X-Forwarded-For: 192.0.2.9"),
    (b"x-forwarded-for: 10.1.2.3", b"X-FORWARDED-FOR: 192.0.2.9"),
    (b"X-Forwarded-For: 10.1.2.3, 192.0.2.9, 127.0.0.1",),
    (b"X-Forwarded-For: 10.1.2.3,\t192.0.2.9 ,127.0.0.2",),
    (b"X-Forwarded-For: 10.1.2.3, garbage",),
    (b"X-Forwarded-For: 10.1.2.3, ",),
    (b"X-Forwarded-For: ,",),
    (b"X-Forwarded-For: 10.1.2.3.4",),
    (b"X-Forwarded-For: 010.1.2.3",),
    (b"X-Forwarded-For: 10.1.2",),
    (b"X-Forwarded-For: 167838211",),
    (b"X-Forwarded-For: 0x0a010203",),
    (b"X-Forwarded-For: [10.1.2.3].evil.example",),
    (b"X-Forwarded-For: 10.1.2.3:80.evil.example",),
    (b"X-Forwarded-For: 10.1.2.3%eth0",),
    (b"X-Forwarded-For: \xff10.1.2.3",),
    (b"X-Forwarded-For: ::10.1.2.3",),
    (b"X_Forwarded_For: 10.1.2.3",),
    (b"Forwarded: for=10.1.2.3",),
    (b"X-Real-IP: 10.1.2.3",),
    (b"Connection: X-Forwarded-For", b"X-Forwarded-For: 10.1.2.3, 192.0.2.9"),
]


@pytest.mark.threat("somebody on the network", "access from an address that is not allowed")
@pytest.mark.parametrize("headers", SPOOFS)
async def test_a_client_cannot_put_its_address_on_the_allowlist_by_a_header(
    house: House, headers: tuple[bytes, ...]
) -> None:
    await house.policy(allowlist=["10.0.0.0/8"], trusted_proxies=["127.0.0.0/8"])

    assert (await house.ask(SERVICE, *headers)).error_code == b"address_refused"


@pytest.mark.threat("somebody on the network", "access from an address that is not allowed")
async def test_forwarded_addresses_count_only_from_trusted_proxies(house: House) -> None:
    await house.policy(per_ip=FEW, trusted_proxies=["192.0.2.0/24", "2001:db8::/32", "::1"])

    assert limited(
        await statuses(house, *(build_request(SERVICE, via(f"10.0.0.{number}")) for number in range(6)))
    )


async def wave(client: RawClient, start: int) -> list[int]:
    """Ask with many wrong keys for many things; pipelined, which is the quickest that a client can."""
    given: list[int] = []
    for first in range(start, start + WAVE, PIPELINED):
        numbers = range(first, first + PIPELINED)
        requests = [build_request(b"/service/svc/%d" % n, bearer(wrong(n))) for n in numbers]
        await client.send(b"".join(requests))
        given += [(await client.response()).status for _ in numbers]
    return given


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_a_flood_of_wrong_keys_stays_small_and_others_are_served(house: House) -> None:
    plain, _ = await house.key()
    attackers = [await house.rig.client() for _ in range(4)]
    good = await house.rig.client()
    request = build_request(SERVICE, bearer(plain))
    flood = asyncio.gather(*(wave(client, n * WAVE) for n, client in enumerate(attackers)))

    served = 0
    while not flood.done():
        assert (await good.ask(request)).status == 200
        served += 1
    given = [status for statuses in await flood for status in statuses]

    audit = house.security.audit
    assert len(audit._refused) <= REFUSALS.burst + 1
    entries = await house.audit()
    assert given == [401] * 4 * WAVE
    assert sum(entry.count for entry in entries) == len(given)
    assert len(entries) <= REFUSALS.burst + 1
    assert list(house.security.keys._last_used) == [plain[4:16].decode()]
    assert len(house.rig.backend.requests) == served


async def test_who_floods_is_held_up_by_the_limit_of_his_address_and_others_are_not(house: House) -> None:
    plain, _ = await house.key()
    await house.policy(per_ip={"rpm": 1, "burst": 20}, trusted_proxies=["127.0.0.1"])
    attacker = await house.rig.client()

    given = []
    for number in range(60):
        request = build_request(SERVICE, bearer(wrong(number)), via("192.0.2.66"))
        given.append((await attacker.ask(request)).status)

    assert given == [401] * 20 + [429] * 40
    assert await statuses(house, build_request(SERVICE, bearer(plain), via("192.0.2.7"))) == [200]
    assert {entry.result: entry.count for entry in await house.audit()} == {
        "invalid_api_key": 20,
        "rate_limited": 40,
    }


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_what_is_known_of_addresses_does_not_grow_for_ever(house: House) -> None:
    await house.policy(per_ip=FEW, allowlist=["0.0.0.0/0", "::/0"])
    limiter, policy = house.security.limiter, house.security.policy

    for number in range(MAX_METERS + 500):
        address = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"
        assert policy.permits(address)
        assert limiter.meters(None, address)

    assert len(limiter._addresses) <= MAX_METERS
    assert len(policy._permitted) <= MAX_METERS


async def test_refusals_that_cannot_be_written_do_not_fill_memory(house: House) -> None:
    fault = Fault()
    audit = AuditLog(FaultyAudit(house.store.audit, fault), house.clock)
    fault.on = True
    for minute in range(60):
        for number in range(REFUSALS.per_minute):
            audit.refuse("anonymous", f"GET /{minute}/{number}", "192.0.2.1", "forbidden")
        with pytest.raises(StoreFullError):
            await audit.flush()
        await house.clock.advance(60)

    pending = len(audit._refused)
    fault.on = False
    await audit.flush()

    assert pending <= MAX_PENDING + 1
    assert sum([entry.count async for entry in audit.export()]) == 60 * REFUSALS.per_minute


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_idle_connections_are_closed_to_make_room(tmp_path: Path) -> None:
    limits = Limits(max_connections=3, keep_alive_timeout=0.1, head_timeout=0.1, shutdown_timeout=0.5)
    async with guarded(tmp_path, limits=limits) as house:
        idle = [await house.rig.client() for _ in range(2)]
        slow = await house.rig.client()
        await slow.send(b"GET /service/svc/x HTTP/1.1\r\nHost: te")
        await eventually(lambda: len(house.rig.connections) == 3)
        assert (await house.ask()).status == 503

        for client in (*idle, slow):
            await client.until_closed()

        assert (await house.ask()).status == 200


async def test_a_key_that_is_gone_from_the_store_is_one_that_does_not_stand(house: House) -> None:
    """As after another store was put in its place: what is under way must not go on, nor anything fail."""
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(SERVICE, bearer(plain)))
    await house.rig.backend.connection()
    others: list[ApiKey] = []

    house.security.keys._take(others)

    assert (await client.response()).error_code == b"invalid_api_key"
    assert not house.security.keys.is_in_force(key.id)
