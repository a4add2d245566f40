"""What a web page can try, in the browser of somebody who runs the proxy on the same machine."""

from pathlib import Path

import pytest
from tests.integration.guard.conftest import House, bearer, guarded
from tests.rigs.raw_http import Message, build_request

from ai_proxy.core.keys import Scope
from ai_proxy.core.settings import SecuritySettings

SERVICE = b"/service/svc/x"
PATHS = [SERVICE, b"/api/v1/services/svc/stop", b"/v1/models", b"/docs", b"/metrics", b"/health"]
CHAT_PAGE = b"Origin: https://chat.example"
WISH = b"Access-Control-Request-Method: POST"

FOREIGN_HOSTS = [
    b"evil.example",
    b"evil.example:11000",
    b"localhost.evil.example",
    b"127.0.0.1.evil.example",
    b"127.0.0.1.nip.io:11000",
    b"localhost:11000.evil.example",
    b"evil.example:localhost",
    b"evillocalhost",
    b"localhost@evil.example",
    b"evil.example@localhost",
    b"localhost,evil.example",
    b"localhost evil.example",
    b"[::1].evil.example",
    b"[::1]evil.example:80",
    b"127.0.0.1:80.evil.example",
    b"127.0.0.1%evil.example",
    b"evil.example%127.0.0.1",
    b"::1.evil.example",
    b"localhost/evil.example",
    "ⓛocalhost".encode(),
    "127.0.0.1。evil".encode(),
]
OWN_HOSTS = [
    b"localhost",
    b"LOCALHOST:11000",
    b"localhost.",
    b"app.localhost:11000",
    b"127.0.0.1",
    b"127.0.0.1:11000",
    b"[::1]",
    b"[::1]:11000",
    b"192.168.1.5:11000",
    b"[2001:db8::1]:80",
]
FOREIGN_ORIGINS = [
    b"https://evil.example",
    b"http://evil.example:11000",
    b"null",
    b"file://",
    b"http://203.0.113.5",
    b"http://192.168.1.66:8000",
    b"http://[2001:db8::5]",
    b"http://0.0.0.0",
    b"http://localhost.evil.example",
    b"http://127.0.0.1.evil.example",
    b"http://test.evil.example",
    b"http://test@evil.example",
    b"http://evil.example/http://test",
    b"http://evil.example#test",
    b"http://test:80@evil.example",
    b"chrome-extension://abcdefgh",
    b"http://[",
    b"http://[::1",
    b"http://[evil.example]",
    b"http://]",
    b"test",
    b"//test",
    b"https://evil.example, http://test",
    b"\xff\xfe",
]
OWN_ORIGINS = [
    b"http://test",
    b"http://localhost:3000",
    b"https://127.0.0.1:8443",
    b"http://[::1]:3000",
    b"tauri://localhost",
]


@pytest.fixture
async def keyed(house: House) -> House:
    """A house with keys, whose policy lets one page call."""
    await house.key()
    await house.policy(cors={"origins": ["https://chat.example"], "credentials": True})
    return house


def untouched(house: House) -> bool:
    return not house.rig.backend.requests and not house.rig.management.requests


async def ask_host(house: House, host: bytes, target: bytes = SERVICE) -> Message:
    return await house.rig.ask(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_name_that_is_not_this_machines_is_refused(house: House, host: bytes) -> None:
    response = await ask_host(house, host)

    assert (response.error_code, untouched(house)) == (b"host_refused", True)


@pytest.mark.parametrize("host", OWN_HOSTS)
async def test_this_machines_names_and_addresses_will_do(house: House, host: bytes) -> None:
    assert (await ask_host(house, host)).status == 200


@pytest.mark.threat("a web page", "access by DNS rebinding")
@pytest.mark.parametrize("path", PATHS)
async def test_a_request_for_a_foreign_host_is_refused_and_audited(house: House, path: bytes) -> None:
    response = await ask_host(house, b"evil.example", path)

    assert (response.status, untouched(house)) == (403, True)
    (entry,) = await house.audit()
    assert (entry.result, entry.what) == ("host_refused", f"GET {path.decode()}")


@pytest.mark.threat("a web page", "access by DNS rebinding")
async def test_a_target_in_absolute_form_does_not_stand_in_for_the_host(house: House) -> None:
    response = await ask_host(house, b"evil.example", b"http://localhost/service/svc/x")

    assert response.error_code == b"host_refused"


@pytest.mark.threat("a web page", "access by DNS rebinding")
@pytest.mark.parametrize("second", [b"Host: evil.example", b"host: localhost", b"HOST: "])
async def test_a_request_with_two_hosts_is_refused(house: House, second: bytes) -> None:
    response = await house.rig.ask(b"GET /service/svc/x HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % second)

    assert (response.status, untouched(house)) == (400, True)


async def test_behind_a_reverse_proxy_its_name_is_one_of_ours_where_the_owner_says_so(tmp_path: Path) -> None:
    async with guarded(tmp_path, SecuritySettings(hosts=("gpu.example.com",))) as house:
        good, bad = (
            await ask_host(house, b"GPU.example.com:8443"),
            await ask_host(house, b"gpu.example.com.evil.example"),
        )

    assert (good.status, bad.status) == (200, 403)


@pytest.mark.threat("a web page", "access to this machine through a visitor's browser")
@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
async def test_a_foreign_page_is_refused(house: House, origin: bytes) -> None:
    responses = [
        await house.ask(SERVICE, b"Origin: " + origin, body=b"x"),
        await house.ask(SERVICE, b"Origin: " + origin, b"Sec-Fetch-Site: same-origin"),
        await house.ask(SERVICE, b"Origin: " + origin, b"Sec-Fetch-Site: none", b"Sec-Fetch-Mode: navigate"),
    ]

    assert [response.error_code for response in responses] == [b"origin_refused"] * 3
    assert untouched(house)
    assert sum(entry.count for entry in await house.audit()) == 3


@pytest.mark.parametrize("origin", OWN_ORIGINS)
async def test_a_page_of_this_machine_may_call(house: House, origin: bytes) -> None:
    assert (await house.ask(SERVICE, b"Origin: " + origin)).status == 200


@pytest.mark.threat("a web page", "access to this machine through a visitor's browser")
@pytest.mark.parametrize("origins", [(b"http://test", b"https://evil.example"), (b"null", b"http://test")])
async def test_a_request_with_two_origins_is_refused(house: House, origins: tuple[bytes, bytes]) -> None:
    response = await house.ask(SERVICE, *(b"Origin: " + origin for origin in origins))

    assert (response.error_code, untouched(house)) == (b"origin_refused", True)


FETCHES = [
    (b"no-cors", b"image"),
    (b"no-cors", b"script"),
    (b"cors", b"empty"),
    (b"websocket", b"empty"),
    (b"navigate", b"iframe"),
    (b"navigate", b"frame"),
    (b"navigate", b"object"),
    (b"navigate", b"embed"),
]


@pytest.mark.threat("a web page", "access to this machine through a visitor's browser")
@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
@pytest.mark.parametrize(("mode", "dest"), FETCHES)
async def test_what_a_page_loads_or_frames_is_refused_without_an_origin_too(
    house: House, site: bytes, mode: bytes, dest: bytes
) -> None:
    fetch = (b"Sec-Fetch-Site: " + site, b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Dest: " + dest)

    assert (await house.ask(b"/docs", *fetch)).error_code == b"origin_refused"


async def test_a_link_may_be_followed(house: House) -> None:
    fetch = (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")

    assert (await house.ask(b"/docs", *fetch)).status == 200


@pytest.mark.threat("a web page", "access to this machine through a visitor's browser")
async def test_a_form_post_with_a_null_origin_is_refused(house: House) -> None:
    form = (b"Content-Type: text/plain", b"Origin: null", b"Sec-Fetch-Mode: navigate")

    response = await house.ask(b"/api/v1/services/svc/stop", *form, body=b"x")

    assert (response.error_code, untouched(house)) == (b"origin_refused", True)


@pytest.mark.threat("a web page", "access through a preflight request")
@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_reaches_nothing_whatever_it_asks_about(keyed: House, path: bytes) -> None:
    wishes = (WISH, b"Access-Control-Request-Headers: authorization, x-ai-proxy-principal")

    response = await keyed.ask(path, CHAT_PAGE, *wishes, b"Authorization: Bearer aip_x", method=b"OPTIONS")

    assert (response.status, response.body) == (204, b"")
    assert untouched(keyed)


@pytest.mark.parametrize(
    "headers",
    [
        (CHAT_PAGE,),
        (WISH,),
        (b"Origin: null", WISH),
        (b"Origin: *", WISH),
        (b"Origin: https://chat.example.evil.example", WISH),
        (b"Origin: https://evil.example", WISH),
        (CHAT_PAGE, CHAT_PAGE, WISH),
        (CHAT_PAGE, WISH, WISH),
        (CHAT_PAGE, b"Access-Control-Request-Method: TRACE"),
        (CHAT_PAGE, b"Access-Control-Request-Method: X\tY"),
    ],
)
async def test_what_is_no_proper_preflight_of_a_known_page_is_refused(
    keyed: House, headers: tuple[bytes, ...]
) -> None:
    response = await keyed.ask(b"/api/v1/keys", *headers, method=b"OPTIONS")

    assert response.status in (401, 403)
    assert response.header(b"access-control-allow-methods") is None
    assert untouched(keyed)


@pytest.mark.threat("a web page", "access through a preflight request")
@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
async def test_only_options_is_treated_as_a_preflight(keyed: House, method: bytes) -> None:
    response = await keyed.ask(b"/api/v1/keys", CHAT_PAGE, WISH, method=method)

    assert (response.status, untouched(keyed)) == (401, True)


@pytest.mark.parametrize(
    "framing", [(b"Content-Length: 1000000",), (b"Transfer-Encoding: chunked",)], ids=["length", "chunks"]
)
async def test_a_preflight_has_no_body_that_could_be_kept(keyed: House, framing: tuple[bytes]) -> None:
    client = await keyed.rig.client()

    await client.send(build_request(SERVICE, CHAT_PAGE, WISH, *framing, method=b"OPTIONS"))

    response = await client.response()
    assert (response.status, response.header(b"connection")) == (401, b"close")


@pytest.mark.threat("a web page", "access through a preflight request")
async def test_a_preflight_opens_no_tunnel(keyed: House) -> None:
    client = await keyed.rig.client()

    await client.send(
        build_request(
            SERVICE, CHAT_PAGE, WISH, b"Connection: Upgrade", b"Upgrade: websocket", method=b"OPTIONS"
        )
        + build_request(SERVICE)
    )

    assert (await client.response()).status == 401
    assert await client.until_closed() == b""


@pytest.mark.threat("a web page", "a visitor's credentials")
async def test_an_allowed_origin_still_needs_a_key(keyed: House) -> None:
    response = await keyed.ask(SERVICE, CHAT_PAGE)

    assert response.status == 401
    assert response.header(b"access-control-allow-origin") == b"https://chat.example"


@pytest.mark.threat("a web page", "responses that the policy denies it")
@pytest.mark.parametrize("origin", [b"null", b"https://evil.example", b"HTTPS://CHAT.EXAMPLE.evil"])
async def test_a_foreign_page_cannot_read_a_response_even_with_a_valid_key(
    keyed: House, origin: bytes
) -> None:
    key, _ = await keyed.key(Scope.ADMIN)

    response = await keyed.ask(b"/api/v1/keys", bearer(key), b"Origin: " + origin)

    assert response.header(b"access-control-allow-origin") is None
    assert response.header(b"access-control-allow-credentials") is None
    assert response.header(b"vary") == b"Origin"


@pytest.mark.threat("a web page", "a visitor's credentials")
async def test_a_policy_that_allows_all_origins_sends_no_credentials(house: House) -> None:
    await house.key()
    await house.policy(cors={"origins": ["*"]})

    response = await house.ask(SERVICE, b"Origin: null")

    assert response.header(b"access-control-allow-origin") == b"*"
    assert response.header(b"access-control-allow-credentials") is None
