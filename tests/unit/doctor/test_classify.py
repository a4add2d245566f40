"""Findings from facts, without probing."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.detection import Detection, EngineState
from ai_proxy.core.keys import ApiKey, Grant
from ai_proxy.core.service import Mount, ProcessLaunch, Service
from ai_proxy.doctor.backends import (
    classify_engines,
    classify_llama_server,
    missing_parts,
    named_files,
    on_host,
)
from ai_proxy.doctor.certificates import classify_end, classify_failures
from ai_proxy.doctor.docker import classify_docker
from ai_proxy.doctor.finding import Level, shorten
from ai_proxy.doctor.folders import Entry, classify_entry, classify_space
from ai_proxy.doctor.machine import classify_clock, classify_gpu, classify_memory, classify_open_files
from ai_proxy.doctor.ports import Listener, classify_listener
from ai_proxy.doctor.store import classify_keys, classify_schema

NOW, DAY = 1_800_000_000.0, 86400.0
KEY = ApiKey("abc", b"", Grant("laptop"), created=NOW - DAY)


@given(mode=st.integers(0, 0o777), folder=st.booleans(), owner=st.sampled_from([0, 1000]))
def test_a_file_is_fine_exactly_when_the_user_alone_may_use_it(mode: int, folder: bool, owner: int) -> None:
    found = classify_entry("x", Entry(Path("/data/x"), folder, owner, mode), user=1000)

    own = 0o700 if folder else 0o600
    assert (found is None) == (owner == 1000 and mode & 0o077 == 0 and mode & own == own)
    assert found is None or found.level is Level.PROBLEM


@given(mode=st.integers(0, 0o777), folder=st.booleans())
def test_the_mode_that_a_repair_sets_is_fine(mode: int, folder: bool) -> None:
    entry = Entry(Path("/data/x"), folder, 1000, mode)

    found = classify_entry("x", entry, user=1000)

    assert found is None or classify_entry("x", replace(entry, mode=found.mode), user=1000) is None


def test_anothers_file_is_not_to_be_changed() -> None:
    found = classify_entry("x", Entry(Path("/data/x"), folder=False, owner=7, mode=0o644), user=1000)

    assert found is not None
    assert "another user (uid 7)" in found.text
    assert found.path is None


@given(free=st.integers(0, 10**12), more=st.integers(0, 10**12))
def test_more_room_is_never_worse(free: int, more: int) -> None:
    order = [Level.PROBLEM, Level.WARNING, None]
    levels = [
        found.level if (found := classify_space(Path("/d"), size)) else None for size in (free, free + more)
    ]

    assert order.index(levels[0]) <= order.index(levels[1])


def test_a_key_about_to_expire_is_named_and_one_that_is_over_is_not() -> None:
    keys = [
        replace(KEY, id="soon", expires=NOW + DAY),
        replace(KEY, id="later", expires=NOW + 30 * DAY),
        replace(KEY, id="over", expires=NOW - 1),
        replace(KEY, id="revoked", revoked=NOW - 1, expires=NOW + DAY),
    ]

    (found,) = classify_keys(keys, "0.0.0.0", NOW, allow_unauthenticated=False)

    assert (found.level, found.fix.split(",")[0]) == (Level.WARNING, "ai-proxy api-keys rotate soon")


@pytest.mark.parametrize(
    ("host", "allow", "level"),
    [
        ("127.0.0.1", False, Level.OK),
        ("0.0.0.0", False, Level.PROBLEM),
        ("0.0.0.0", True, Level.WARNING),
        ("gpu-box", False, Level.PROBLEM),
    ],
)
def test_no_key_is_a_problem_only_where_others_can_reach_the_proxy(
    host: str, allow: bool, level: Level
) -> None:
    (found,) = classify_keys([], host, NOW, allow_unauthenticated=allow)

    assert found.level is level


def test_keys_in_force_are_counted_and_none_in_force_is_told() -> None:
    (fine,) = classify_keys([KEY, replace(KEY, revoked=NOW)], "0.0.0.0", NOW, allow_unauthenticated=False)
    (none,) = classify_keys([replace(KEY, revoked=NOW)], "127.0.0.1", NOW, allow_unauthenticated=False)

    assert fine.text == "1 of 2 are valid"
    assert none.level is Level.WARNING


def test_a_schema_is_told_unless_it_is_ours() -> None:
    found = {schema: classify_schema("/x", schema, "0002") for schema in (None, "0001", "0002", "0003")}

    levels = {schema: one.level if one else None for schema, one in found.items()}
    assert levels == {None: Level.OK, "0001": Level.OK, "0002": None, "0003": Level.PROBLEM}


@pytest.mark.parametrize(
    ("starts", "ends", "level"),
    [
        (-30, 60, Level.OK),
        (-80, 10, Level.WARNING),
        (-89, -1, Level.PROBLEM),
        (1, 90, Level.PROBLEM),
        (-1, 5, Level.OK),
    ],
)
def test_a_certificate_is_told_by_what_is_left_of_its_life(starts: float, ends: float, level: Level) -> None:
    assert classify_end("x", "a.pem", NOW + starts * DAY, NOW + ends * DAY, NOW, "fix").level is level


def test_renewals_that_failed_are_told_with_the_reason() -> None:
    found = classify_failures("gpu.example.com", 3, "no such name")

    assert classify_failures("gpu.example.com", 0, "") is None
    assert found is not None
    assert "3 attempts failed: no such name" in found.text


@given(
    error=st.sampled_from([0, errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EIO]),
    ours=st.booleans(),
)
def test_a_port_is_fine_when_it_is_free_or_our_own(error: int, ours: bool) -> None:
    found = classify_listener(Listener("server.port", "127.0.0.1", 11000, error, "python (pid 7)", ours))

    assert (found.level is Level.OK) == (error == 0 or (error == errno.EADDRINUSE and ours))
    assert bool(found.fix) == (found.level is not Level.OK)


def test_who_holds_a_port_is_named() -> None:
    found = classify_listener(Listener("server.port", "127.0.0.1", 11000, errno.EADDRINUSE, "nginx (pid 7)"))

    assert "in use by nginx (pid 7)" in found.text


def test_docker_is_a_problem_only_where_a_service_needs_it() -> None:
    assert classify_docker("27.1, on this machine", "", ["a"]).text == "27.1, on this machine"
    assert classify_docker("", "no engine", []).level is Level.OK
    assert classify_docker("", "no engine", ["a"]).level is Level.PROBLEM


def test_memory_that_can_never_suffice_is_worse_than_memory_that_is_taken_now() -> None:
    levels = [classify_memory(100, 50, {"a": need})[0].level for need in (0, 50, 51, 101)]

    assert levels == [Level.OK, Level.OK, Level.WARNING, Level.PROBLEM]


def test_a_gpu_a_limit_and_a_clock_are_judged_by_what_is_needed() -> None:
    assert classify_gpu(["a"], found=False).level is Level.WARNING
    assert classify_gpu(["a"], found=True).level is Level.OK
    assert classify_open_files(20_000, 10_000).level is Level.OK
    assert "enough for 512 of 10000 clients" in classify_open_files(1024, 10_000).text
    assert classify_clock(NOW, NOW + 60).level is Level.OK
    assert classify_clock(NOW, NOW + DAY).level is Level.PROBLEM


def detection(state: EngineState, version: str | None = None) -> Detection:
    url = "http://127.0.0.1:11434"
    return Detection("ollama", "Ollama", state, url, "no answer", version, ("a", "b"), 1.0, None, NOW)


def test_engines_that_are_here_have_a_line_each() -> None:
    states = (EngineState.ABSENT, EngineState.INSTALLED_ONLY, EngineState.ERROR_API)

    running = classify_engines([detection(EngineState.RUNNING_HEALTHY, "0.5")])
    others = classify_engines([detection(state) for state in states])

    assert [one.text for one in running] == ["Ollama 0.5 at http://127.0.0.1:11434, 2 models"]
    assert [one.level for one in others] == [Level.OK, Level.WARNING]
    assert len(classify_engines([])) == 1


def service(*command: str, workdir: str | None = None) -> Service:
    return Service("a", "generic", "generic", ProcessLaunch(command, workdir=workdir), "hash")


@given(st.lists(st.text(max_size=8)))
def test_any_command_can_be_searched_for_model_files(words: list[str]) -> None:
    assert all(name.endswith(".gguf") for name in named_files(words))


def test_files_are_sought_where_the_service_would() -> None:
    asked: list[str] = []

    def exists(path: str) -> bool:
        asked.append(path)
        return False

    found = missing_parts(
        [service("./serve", "-m", "x.gguf", workdir="/srv")], {"PATH": "/nowhere"}, exists, containers=True
    )

    assert sorted(asked) == ["/srv/serve", "/srv/x.gguf"]
    assert [one.level for one in found] == [Level.PROBLEM] * 2


def test_a_path_outside_every_mount_is_the_images_own() -> None:
    assert on_host("/models-of-others/a.gguf", [Mount("/srv", "/models")]) is None


def test_llama_server_is_found_on_path_or_within() -> None:
    texts = [
        classify_llama_server("/usr/bin/llama-server").text,
        classify_llama_server(None, lambda _: True).text,
        classify_llama_server(None, lambda _: False).text,
    ]

    assert texts[0] == "found at /usr/bin/llama-server"
    assert "embedded llama.cpp" in texts[1]
    assert "to embed one: " in texts[2]


@given(st.text(), st.integers(1, 50))
def test_a_shortened_text_is_one_line(text: str, most: int) -> None:
    short = shorten(text, most)

    assert len(short) <= most
    assert len(short.splitlines()) <= 1
