"""What is found on a real disk, in a real store, at a real port."""

import asyncio
import json
import os
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.unit.doctor.conftest import NOW, Setup

from ai_proxy.core.keys import Grant
from ai_proxy.core.settings import AcmeSettings
from ai_proxy.doctor.backends import check_engines
from ai_proxy.doctor.certificates import check_certificates
from ai_proxy.doctor.docker import check_docker
from ai_proxy.doctor.examine import CHECKS, examine
from ai_proxy.doctor.finding import Finding, Level, ok
from ai_proxy.doctor.folders import check_data_folder, check_run_folder, repair
from ai_proxy.doctor.installation import Installation, check_configuration
from ai_proxy.doctor.ports import check_ports
from ai_proxy.doctor.store import check_store
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import open_store
from ai_proxy.platform.run_folder import create_instance_folder, lock_instance
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import open_security
from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.acme import directory_folder, directory_url
from ai_proxy.tls.authority import self_signed
from ai_proxy.tls.files import write_private


async def fill(data: Path, *labels: str) -> None:
    """Make a store with keys."""
    pepper = load_pepper(data)
    async with open_store(file_url(data)) as store, open_security(store, pepper, FakeClock()) as security:
        for label in labels:
            await security.keys.create(Grant(label))


def damage_the_end(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: -4096 * 40] + b"\xa5" * (4096 * 40))


def texts(findings: Sequence[Finding], level: Level) -> list[str]:
    return [finding.text for finding in findings if finding.level is level]


async def test_a_fresh_installation_has_no_problem(setup: Setup) -> None:
    installation = setup(AI_PROXY_DETECT="0")

    found = await examine(installation)

    assert texts(found, Level.PROBLEM) == []
    assert len(found) >= len(CHECKS)
    assert not installation.data.exists()


async def test_a_check_that_breaks_or_hangs_is_a_finding_and_the_others_go_on(setup: Setup) -> None:
    async def breaks(_: Installation) -> Sequence[Finding]:
        raise KeyError("x")

    async def hangs(_: Installation) -> Sequence[Finding]:
        await asyncio.Event().wait()
        raise AssertionError

    async def works(_: Installation) -> Sequence[Finding]:
        return [ok("c", "fine")]

    found = await examine(setup(), {"a": breaks, "b": hangs, "c": works}, limit=0.05)

    assert [(one.subject, one.level) for one in found] == [
        ("a", Level.PROBLEM),
        ("b", Level.WARNING),
        ("c", Level.OK),
    ]
    assert "KeyError: 'x'" in found[0].text


async def test_every_error_of_the_configuration_is_told_and_the_rest_is_looked_at(setup: Setup) -> None:
    installation = setup("server: {port: none}\nservices: {a: {type: nonsense}}\n")

    found = await check_configuration(installation)

    assert len(texts(found, Level.PROBLEM)) == 2
    assert installation.services == ()


async def test_open_permissions_are_found_and_repaired(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data)
    (installation.data / "tls").mkdir(mode=0o755)
    (installation.data / "tls" / "ca.pem").write_text("key")
    for path, mode in (("", 0o755), ("pepper", 0o644), ("tls", 0o755), ("tls/ca.pem", 0o644)):
        (installation.data / path).chmod(mode)

    found = await check_data_folder(installation)
    fixed = repair(found)

    assert len(texts(found, Level.PROBLEM)) == len(fixed) == 4
    assert texts(await check_data_folder(installation), Level.PROBLEM) == []


async def test_a_data_directory_that_is_a_file_is_told(setup: Setup) -> None:
    installation = setup()
    installation.data.write_text("")

    assert "is not a folder" in texts(await check_data_folder(installation), Level.PROBLEM)[0]


async def test_a_run_directory_open_to_others_or_too_deep_is_told(setup: Setup, tmp_path: Path) -> None:
    installation = setup()
    installation.run.chmod(0o777)

    (shared,) = await check_run_folder(installation)
    repair([shared])
    (repaired,) = await check_run_folder(installation)

    assert "others can access it" in shared.text
    assert repaired.level is Level.OK


async def test_a_sound_store_is_looked_at_without_a_change(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data, "laptop", "server")
    before = (installation.data / "ai-proxy.db").read_bytes()

    found = await check_store(installation)

    assert [one.level for one in found] == [Level.OK, Level.OK]
    assert found[1].text == "2 of 2 are valid"
    assert (installation.data / "ai-proxy.db").read_bytes() == before


async def test_an_older_store_is_not_brought_up_to_date_and_a_newer_one_is_a_problem(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data)
    levels = []

    for schema in ("0000", "9999"):
        with closing(sqlite3.connect(installation.data / "ai-proxy.db")) as database, database:
            database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        levels += [one.level for one in await check_store(installation)]

    assert levels == [Level.OK, Level.PROBLEM]
    with closing(sqlite3.connect(installation.data / "ai-proxy.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


async def test_a_missing_pepper_and_anothers_are_told_and_none_is_made(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data, "laptop")

    (installation.data / "pepper").write_text(f"{'0' * 64}\n")
    foreign = await check_store(installation)
    (installation.data / "pepper").unlink()
    missing = await check_store(installation)

    assert "not the one" in texts(foreign, Level.PROBLEM)[0]
    assert "is missing" in texts(missing, Level.PROBLEM)[0]
    assert not (installation.data / "pepper").exists()


async def test_a_damaged_store_is_told_with_the_way_back(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data)
    (installation.data / "ai-proxy.db").write_bytes(b"garbage" * 1000)

    (found,) = await check_store(installation)

    assert found.level is Level.PROBLEM
    assert "is damaged" in found.text
    assert "run 'ai-proxy backup restore'" in found.fix


async def test_damage_inside_a_store_is_found(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data)
    async with open_store(file_url(installation.data)) as store:
        await store.settings.put("large", ["x" * 100] * 2000)
    damage_the_end(installation.data / "ai-proxy.db")

    found = await check_store(installation)

    assert "ai-proxy backup restore FILE" in next(one.fix for one in found if one.level is Level.PROBLEM)


async def test_a_key_that_cannot_be_read_is_a_problem(setup: Setup) -> None:
    installation = setup()
    await fill(installation.data, "laptop")
    with closing(sqlite3.connect(installation.data / "ai-proxy.db")) as database, database:
        database.execute("UPDATE api_keys SET scopes = 'all of them'")

    found = await check_store(installation)

    assert "1 cannot be read, so requests with them are refused" in texts(found, Level.PROBLEM)


async def test_a_store_whose_server_is_away_is_told_without_its_password(
    setup: Setup, tmp_path: Path
) -> None:
    config = "store: {url: '${env:URL}'}\n"
    installation = setup(config, URL=f"postgresql://me:hunter2@/db?host={tmp_path}")

    (found,) = await check_store(installation)

    assert found.level is Level.PROBLEM
    assert "hunter2" not in str(found)


async def test_a_port_is_free_or_held_and_by_whom_is_told(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        installation = setup(f"server: {{port: {port}}}\n")
        (taken,) = await check_ports(installation)
        folder = create_instance_folder(installation.run, port)
        with lock_instance(folder), socket.socket(socket.AF_UNIX) as control:
            control.bind(str(folder / "control.sock"))
            control.listen()
            (ours,) = await check_ports(installation)
    (free,) = await check_ports(installation)

    assert "is in use by" in taken.text
    assert f"pid {os.getpid()}" in taken.text
    assert (ours.level, free.level) == (Level.OK, Level.OK)
    assert "is free" in free.text


async def test_an_address_of_another_machine_is_told(setup: Setup) -> None:
    (found,) = await check_ports(setup("server: {host: 192.0.2.1}\n"))

    assert "not an address of this machine" in found.text


async def test_docker_that_does_not_answer_is_told_for_the_service_that_needs_it(
    setup: Setup, tmp_path: Path
) -> None:
    config = "services: {a: {type: llama-cpp-server, image: x, port: 8080}}\n"

    (found,) = await check_docker(setup(config, DOCKER_HOST=f"unix://{tmp_path}/none.sock"))

    assert found.level is Level.PROBLEM
    assert found.text.startswith("a cannot start")


async def test_engines_are_not_looked_for_where_that_is_off(setup: Setup) -> None:
    (by_config,) = await check_engines(setup("engine: {detect: false}\n"))
    (by_environment,) = await check_engines(setup(AI_PROXY_DETECT="0"))

    assert by_config.text == by_environment.text == "detection is off"


async def test_a_certificate_of_ones_own_is_read_with_its_key(setup: Setup, tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    config = f"tls: {{mode: files, certificate: {file}}}\n"
    write_private(file, self_signed(["gpu.lan"], NOW))
    installation = setup(config)

    (good,) = await check_certificates(installation)
    file.chmod(0o644)
    (readable,) = await check_certificates(installation)
    file.write_text("garbage")
    (garbage,) = await check_certificates(installation)

    assert good.level is Level.OK
    assert "any user of this machine can read" in readable.text
    assert "contains no valid PEM certificate" in garbage.text


async def test_the_last_error_of_a_public_authority_is_told(setup: Setup) -> None:
    config = "server: {port: 443}\ntls: {mode: https-acme, acme: {domains: [gpu.example.com]}}\n"
    installation = setup(config)
    acme = AcmeSettings(("gpu.example.com",))
    home = directory_folder(installation.data / "tls" / "acme", directory_url(acme))
    failures = {"count": 2, "again": NOW, "reason": "no such name"}
    write_private(home / "gpu.example.com.failures.json", json.dumps(failures).encode())

    found = await check_certificates(installation)

    assert [one.level for one in found] == [Level.OK, Level.WARNING]
    assert "2 attempts failed: no such name" in found[1].text


async def test_a_local_certificate_is_looked_for_by_its_port(setup: Setup) -> None:
    installation = setup("server: {port: 8443}\ntls: {mode: dev-selfsigned}\n")

    (before,) = await check_certificates(installation)
    write_private(installation.data / "tls" / "server-8443.pem", self_signed(["gpu.lan"], NOW - 400 * 86400))
    (after,) = await check_certificates(installation)

    assert before.text.startswith("none yet")
    assert after.level is Level.PROBLEM
