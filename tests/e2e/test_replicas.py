"""A service that somebody else runs, at several addresses."""

import subprocess

from tests.e2e.conftest import Proxy, chat, eventually
from tests.rigs.docker_engine import free_port

from ai_proxy.testing.fake_engine import Behaviour, fake_engine_command, running_fake_engine

CHAT = "/service/farm/v1/chat/completions"


def test_requests_go_on_when_a_replica_dies_and_spread_again_when_it_is_back(proxy: Proxy) -> None:
    port = free_port()
    command = [word.replace("${port}", str(port)) for word in fake_engine_command(Behaviour.OK)]
    with running_fake_engine() as steady:
        dying = subprocess.Popen(command)
        urls = [f"http://127.0.0.1:{steady}", f"http://127.0.0.1:{port}"]
        proxy.configure(farm={"type": "openai", "urls": urls})
        proxy.serve()
        eventually(lambda: proxy.service("farm")["state"] == "ready")
        before = [proxy.ask(CHAT, chat()).status for _ in range(6)]

        dying.kill()
        dying.wait()
        during = [proxy.ask(CHAT, chat()).status for _ in range(20)]

    assert proxy.service("farm")["upstreams"] == urls
    assert set(before) == {200}
    assert set(during) == {200}


def test_a_service_whose_only_address_is_away_says_so_and_is_back_by_itself(proxy: Proxy) -> None:
    port = free_port()
    proxy.configure(away={"type": "generic", "url": f"http://127.0.0.1:{port}", "start_timeout": "1s"})
    proxy.serve()

    refused = proxy.ask("/service/away/x")
    command = [word.replace("${port}", str(port)) for word in fake_engine_command(Behaviour.OK)]
    back = subprocess.Popen(command)
    try:
        answer = eventually(lambda: ok if (ok := proxy.ask("/service/away/echo")).status == 200 else None)
    finally:
        back.kill()
        back.wait()

    assert refused.status == 503
    assert refused.headers["X-AI-Proxy-Error"] in ("service_failed", "start_timeout")
    assert answer.json["path"] == "/echo"
