"""Whatever a client writes for a path, without a key for that it manages nothing; with the real app."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send
from tests.integration.guard.conftest import House, bearer
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view
from tests.rigs.raw_http import build_request

from ai_proxy.api.middleware import client_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.keys import Scope as KeyScope
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.core.service import Upstream
from ai_proxy.gateway.inference.prompt import plain_reader
from ai_proxy.gateway.routing.endpoints import OLLAMA, OPENAI
from ai_proxy.gateway.routing.table import MANAGEMENT, Destination, RoutingTable
from ai_proxy.instances.state import ProxyState

OPEN = ("/health", "/ready")
NOTHING = (404, 405)


@dataclass
class Watched:
    """An application, and what it was asked for: path, as it understands that, and its answer's status."""

    app: object
    asked: list[tuple[str, int]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(event: Event) -> None:
            if event["type"] == "http.response.start":
                self.asked.append((scope["path"], event["status"]))
            await send(event)

        await self.app(scope, receive, noting)  # type: ignore[operator]


@dataclass
class Site:
    """A guarded gateway in front of the real management app."""

    house: House
    watched: Watched
    inference: bytes
    admin: bytes
    ollama: int

    async def status(self, target: bytes, *headers: bytes, port: int = 0, **request: bytes) -> int:
        client = await self.house.rig.client(port)
        try:
            return (await client.ask(build_request(target, *headers, **request))).status
        finally:
            await client.close()

    def managed(self) -> list[tuple[str, int]]:
        """Return what the app has told that is not for everybody who may ask models, and forget all."""
        asked, self.watched.asked[:] = tuple(self.watched.asked), ()
        return [
            (path, status)
            for path, status in asked
            if status not in NOTHING and path not in OPEN and path != "/v1" and not path.startswith("/v1/")
        ]


@pytest.fixture
async def site(house: House, tmp_path: Path) -> AsyncIterator[Site]:
    run_settings = SettingsHolder(house.store.settings, RunSettings())
    state = ProxyState(tmp_path, house.store, house.security, run_settings, house.clock)
    app = create_app(FakePlane(view("svc")), lambda: (b"m 1\n", "text/plain"), "1.2.3", state=state)
    watched = Watched(app, [])
    async with serve_unix(tmp_path / "app.sock", watched, client_principal):
        gateway = house.rig.gateway
        pool = gateway.shared.pools.of(Upstream("localhost", 80, unix_path=str(tmp_path / "app.sock")))
        gateway.shared.table.management.pool = pool
        inference, _ = await house.key()
        admin, _ = await house.key(KeyScope.ADMIN)
        yield Site(house, watched, inference, admin, await house.ollama())
        pool.sweep(0)


MANAGED = [
    b"/api/v1/keys",
    b"/api/v1/services",
    b"/api/v1/policy",
    b"/api/v1/audit",
    b"/docs",
    b"/docs/assets/swagger-ui-bundle.js",
    b"/redoc",
    b"/openapi.json",
    b"/metrics",
    b"/",
]
TRICKS = [
    b"/service/../api/v1/services",
    b"/service/svc/../../api/v1/services",
    b"/service/svc/%2e%2e/%2e%2e/api/v1/keys",
    b"/service/%2e%2e/api/v1/keys",
    b"/service//api/v1/keys",
    b"/service/",
    b"/service",
    b"//api/v1/keys",
    b"///api/v1/keys",
    b"/./api/v1/keys",
    b"/../api/v1/keys",
    b"/%2e/api/v1/keys",
    b"/%2fapi/v1/keys",
    b"/%61pi/v1/keys",
    b"/ap%69/v1/keys",
    b"/API/v1/keys",
    b"/Api/V1/Keys",
    b"/v1/../api/v1/keys",
    b"/v1/..%2fapi/v1/keys",
    b"/v1%2f../api/v1/keys",
    b"/v1/%2e%2e/api/v1/keys",
    b"/v1/models/../../api/v1/keys",
    b"/v1//api/v1/keys",
    b"/v1;/../api/v1/keys",
    b"/v1?/../api/v1/keys",
    b"/v1#/api/v1/keys",
    b"/v1/#/api/v1/keys",
    b"/v1/models?/api/v1/keys",
    b"/v1\\..\\api\\v1\\keys",
    b"/health/../api/v1/keys",
    b"/health/..;/api/v1/keys",
    b"/health%2f..%2fapi/v1/keys",
    b"/health;/api/v1/keys",
    b"/health?/../api/v1/keys",
    b"/ready#/../api/v1/keys",
    b"/ready/",
    b"/api;x=1/v1/keys",
    b"/api./v1/keys",
    b"/api/v1/keys/.",
    b"/api/v1/keys.",
    b"/api/v1/keys/",
    b"/api/v1//keys",
    b"/api",
    b"/api%00/v1/keys",
    b"/api%20/v1/keys",
    b"/docs/",
    b"/docs/..",
    b"/docs/assets/..%2f..%2fapi",
    b"/metrics/",
    b"/metrics?x",
    b"/?x=1",
    b"/#",
    b"/;",
    b"/.",
    b"*",
    b"/*",
    b"http://test/api/v1/keys",
    b"HTTP://test/api/v1/keys",
    b"https://test/api/v1/keys",
    b"http://test//api/v1/keys",
    b"http://test/v1/../api/v1/keys",
    b"http://test/health/../api/v1/keys",
    b"http:///api/v1/keys",
    b"http://test?/api/v1/keys",
    b"http://test#/api/v1/keys",
    b"http://x@test/api/v1/keys",
    b"http://test/http://test/api/v1/keys",
    b"http://http://test/api/v1/keys",
    b"/http://test/api/v1/keys",
    b"ws://test/api/v1/keys",
    b"ftp://test/api/v1/keys",
    b"http:/api/v1/keys",
    b"/ollama/api/tags",
    b"/ollama/",
]


@pytest.mark.parametrize("target", MANAGED)
async def test_what_is_managed_is_there_and_takes_an_admins_key(site: Site, target: bytes) -> None:
    without, inference = await site.status(target), await site.status(target, bearer(site.inference))
    assert (without, inference, site.managed()) == (401, 403, [])

    assert await site.status(target, bearer(site.admin)) in (200, 307)

    assert site.managed()


@pytest.mark.threat("somebody on the network", "management through path confusion")
@pytest.mark.parametrize("target", TRICKS)
async def test_no_spelling_of_a_path_reaches_management_without_its_scope(site: Site, target: bytes) -> None:
    for method in (b"GET", b"POST", b"HEAD", b"DELETE"):
        assert await site.status(target, method=method) >= 400 or target.startswith(b"/health?")
        await site.status(target, bearer(site.inference), method=method)
        await site.status(target, bearer(site.inference), method=method, port=site.ollama)

    told = [path for path, _ in site.managed() if path != "/ollama/"]
    assert told == []


PIECES = [*(path.decode() for path in MANAGEMENT), *"/.;?#%*\\:@ ", "..", "//", "%2e", "%2f", "%25", "%00"]
PIECES += ["service", "svc", "v1", "api", "keys", "models", "http://", "HTTPS://", "test", "ollama", "tags"]
PIECES += ["API", "x", "localhost:80", "[::1]", "assets", "chat", "completions", "é"]
targets = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join)


@pytest.mark.threat("somebody on the network", "management through path confusion")
@given(target=targets, method=st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"]))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_random_path_reaches_management_without_its_scope(
    site: Site, target: str, method: bytes
) -> None:
    line = target.replace(" ", "%20").encode()

    await site.status(line, bearer(site.inference), method=method)
    managed = site.managed()
    await site.status(line, bearer(site.inference), method=method, port=site.ollama)
    beside = [path for path, _ in site.managed() if not path.startswith("/ollama/")]

    assert (managed, beside) == ([], [])


@pytest.mark.threat("an ordinary key", "management of the proxy")
@given(targets)
@settings(max_examples=1000)
def test_every_path_of_the_management_app_needs_the_admin_scope_except_models_and_health(target: str) -> None:
    gateway_sees = target.encode()
    table = RoutingTable(Destination(""), plain_reader(()), services={b"svc": Destination("svc")})
    try:
        destination, path = OPENAI.resolve(table, gateway_sees)
    except ProxyError:
        return

    managed = destination is table.management
    name = path.partition(b"?")[0]
    if managed and name not in (b"/health", b"/ready", b"/v1") and not name.startswith(b"/v1/"):
        assert OPENAI.scope(gateway_sees) is KeyScope.ADMIN
    elif not managed:
        assert OPENAI.scope(gateway_sees) is KeyScope.INFERENCE
    assert OLLAMA.scope(gateway_sees) is KeyScope.INFERENCE
