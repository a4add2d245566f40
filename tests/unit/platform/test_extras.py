"""How people are told to add an optional part."""

import json
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

import ai_proxy
from ai_proxy.platform.extras import (
    Installation,
    Installer,
    find_installation,
    how_to_install,
    install_command,
    requirements_of,
)

NEEDED = ["opentelemetry-sdk>=1.45"]


def installed(folder: Path, url: str | None, installer: str = "pip", **facts: object) -> Distribution:
    """Return a distribution as an installer leaves it."""
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: ai-inference-proxy\nVersion: 1\n"
        "Requires-Dist: rich>=15\n"
        "Requires-Dist: opentelemetry-sdk>=1.45; extra == 'otel'\n"
        "Requires-Dist: xllamacpp==1; (platform_machine == 'x86_64') and extra == 'llamacpp'\n"
    )
    (folder / "INSTALLER").write_text(f"{installer}\n")
    if url:
        (folder / "direct_url.json").write_text(json.dumps({"url": url, **facts}))
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("installer", "source", "editable", "command"),
    [
        (Installer.PIP, "/src", True, "/env/bin/python -m pip install -e '/src[otel]'"),
        (Installer.PIP, "/a b.whl", False, "/env/bin/python -m pip install '/a b.whl[otel]'"),
        (Installer.PIP, None, False, "/env/bin/python -m pip install 'opentelemetry-sdk>=1.45'"),
        (Installer.UV, "/src", True, "uv pip install --python /env/bin/python -e '/src[otel]'"),
        (Installer.UV, None, False, "uv pip install --python /env/bin/python 'opentelemetry-sdk>=1.45'"),
        (Installer.PIPX, "/a.whl", False, "pipx install --force '/a.whl[otel]'"),
        (Installer.PIPX, None, False, "pipx inject ai-inference-proxy 'opentelemetry-sdk>=1.45'"),
        (Installer.UV_TOOL, "/a.whl", False, "uv tool install --force '/a.whl[otel]'"),
        (Installer.UV_TOOL, None, False, "uv pip install --python /env/bin/python 'opentelemetry-sdk>=1.45'"),
    ],
)
def test_the_command_is_one_for_this_installation(
    installer: Installer, source: str | None, editable: bool, command: str
) -> None:
    found = Installation(installer, "/env/bin/python", source, editable=editable)

    assert install_command(found, "otel", NEEDED) == command


@pytest.mark.parametrize(
    ("note", "installer", "expected"),
    [
        ("", "pip", Installer.PIP),
        ("", "uv", Installer.UV),
        ("pipx_metadata.json", "pip", Installer.PIPX),
        ("pipx_metadata.json", "uv", Installer.PIPX),
        ("uv-receipt.toml", "uv", Installer.UV_TOOL),
    ],
)
def test_what_installed_the_program_is_known(
    tmp_path: Path, note: str, installer: str, expected: Installer
) -> None:
    if note:
        (tmp_path / note).touch()

    assert find_installation(installed(tmp_path, None, installer), tmp_path).installer == expected


def test_a_folder_that_the_program_runs_from_is_named(tmp_path: Path) -> None:
    checkout = tmp_path / "a clone"
    checkout.mkdir()

    found = find_installation(installed(tmp_path, checkout.as_uri(), dir_info={"editable": True}), tmp_path)

    assert (found.source, found.editable) == (str(checkout), True)


@pytest.mark.parametrize(
    "url", [None, "https://example.com/a.whl", "file:///gone/a.whl", "ssh://git@example.com/a"]
)
def test_a_source_that_is_not_here_is_not_named(tmp_path: Path, url: str | None) -> None:
    assert find_installation(installed(tmp_path, url, archive_info={}), tmp_path).source is None


def test_the_requirements_of_an_extra_are_those_alone(tmp_path: Path) -> None:
    found = installed(tmp_path, None)

    assert requirements_of(found, "otel") == NEEDED
    assert requirements_of(found, "llamacpp") == ["xllamacpp==1"]


def test_no_message_relies_on_the_distribution_being_on_an_index() -> None:
    modules = Path(ai_proxy.__path__[0]).rglob("*.py")

    assert [path for path in modules if "ai-inference-proxy[" in path.read_text("utf-8")] == []
    assert "[otel]" in how_to_install("otel")
