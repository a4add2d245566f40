import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.runtimes.docker.logins import HUB, Login, Logins


def logins(folder: Path, config: Any = None) -> Logins:
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return Logins({"DOCKER_CONFIG": str(folder), "PATH": str(folder)})


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def helper(folder: Path, name: str, script: str) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def test_without_any_login_there_is_none(tmp_path: Path) -> None:
    assert await logins(tmp_path).find("ghcr.io/model") is None
    assert await logins(tmp_path, {"auths": {"ghcr.io": {}}}).find("ghcr.io/model") is None


async def test_a_login_is_for_its_registry_only(tmp_path: Path) -> None:
    kept = logins(tmp_path, {"auths": {HUB: {"auth": encoded("me:pass:word")}}})
    assert await kept.find("org/model:1") == Login(HUB, "me", "pass:word")
    assert await kept.find("ghcr.io/org/model:1") is None


async def test_a_token_stands_for_user_and_password(tmp_path: Path) -> None:
    kept = logins(tmp_path, {"auths": {"ghcr.io": {"auth": encoded("me:"), "identitytoken": "t"}}})
    assert await kept.find("ghcr.io/model") == Login("ghcr.io", token="t")


async def test_a_helper_of_the_registry_comes_before_that_of_all(tmp_path: Path) -> None:
    helper(tmp_path, "all", """echo '{"Username": "all", "Secret": "s"}'""")
    helper(tmp_path, "one", """echo '{"Username": "<token>", "Secret": "s"}'""")
    kept = logins(tmp_path, {"credsStore": "all", "credHelpers": {"ghcr.io": "one"}})
    assert await kept.find("ghcr.io/model") == Login("ghcr.io", token="s")
    assert await kept.find("model") == Login(HUB, "all", "s")


@pytest.mark.parametrize("script", ["echo credentials not found; exit 1", "echo nonsense", "echo []"])
async def test_a_helper_that_knows_nothing_leaves_the_file(tmp_path: Path, script: str) -> None:
    helper(tmp_path, "all", script)
    kept = logins(tmp_path, {"credsStore": "all", "auths": {"ghcr.io": {"auth": encoded("me:s")}}})
    assert await kept.find("ghcr.io/model") == Login("ghcr.io", "me", "s")


async def test_a_helper_that_is_not_installed_leaves_the_file(tmp_path: Path) -> None:
    kept = logins(tmp_path, {"credsStore": "gone", "auths": {"ghcr.io": {"auth": encoded("me:s")}}})
    assert await kept.find("ghcr.io/model") == Login("ghcr.io", "me", "s")


async def test_a_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailureError, match=f"cannot read the logins in {tmp_path}/config.json"):
        await logins(tmp_path, "{").find("ghcr.io/model")


def test_a_login_shows_neither_user_nor_secret() -> None:
    login = Login("ghcr.io", "me", "secret", "token")
    assert repr(login) == "<Login ghcr.io>"
    assert json.loads(base64.urlsafe_b64decode(login.header())) == {
        "serveraddress": "ghcr.io",
        "username": "me",
        "password": "secret",
        "identitytoken": "token",
    }
