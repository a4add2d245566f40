"""Every file in `bad/` is wrong, and says in its first lines what must be reported about it."""

from pathlib import Path

import pytest

from ai_proxy.config.load import load_config
from ai_proxy.config.problems import ConfigError

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
SECRET = "verysecret"
ENVIRON = {"KEY": SECRET, "WORD": SECRET, "EMPTY": ""}
EXPECT = "# expect: "


def expected(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(EXPECT) for line in lines if line.startswith(EXPECT)]


def reported(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ENVIRON)
    return [line.removeprefix(f"{path}:") for line in caught.value.detail.splitlines()]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_reports_every_error_with_its_place_and_a_hint(path: Path) -> None:
    assert reported(path) == expected(path)


@pytest.mark.threat("an operator's mistake", "a secret in a log, an error or a shown configuration")
@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_never_shows_a_secret(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ENVIRON)

    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.problems!r}"


def test_there_are_many_kinds_of_wrong_files() -> None:
    assert len(BAD) >= 25
    assert all(expected(path) for path in BAD)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"server: {}\n# caf\xe9\n", "2:6: not UTF-8 text; save the file as UTF-8"),
        ("server: {}".encode("utf-16"), "1:1: not UTF-8 text; save the file as UTF-8"),
        (b"server: {}\n  # \x00\n", "2:5: a control character is not allowed; remove it"),
        (b"<<: [1]\nservices: {}\n", "1:1: '<<' only merges mappings; give it an alias of a mapping"),
        (b"? [a]\n: 1\n", "1:1: a key must be plain text; write a name in front of the ':'"),
        (
            b"server: {port: " + b"1" * 5000 + b"}",
            "1:16: server.port: this number cannot be read; put the value in quotes if it is text",
        ),
        (b"a: " + b"[" * 1500, "1:1: the file is nested too deeply; simplify it"),
    ],
)
def test_reports_what_no_editor_would_write(tmp_path: Path, content: bytes, message: str) -> None:
    assert reported(write(tmp_path, content)) == [message]


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 12)]

    problems = reported(write(tmp_path, "\n".join(lines).encode()))

    assert any("an alias contains itself" in problem for problem in problems)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: no such file; create it with 'ai-proxy config init'"):
        load_config(tmp_path / "nope.yaml", {})


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give the path of the file in it"):
        load_config(tmp_path, {})
