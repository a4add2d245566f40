"""The data directory is its owner's alone, whatever made it and whatever the umask."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ai_proxy.platform.data_folder import DataDirError, owner_id, private_data_folder
from ai_proxy.platform.private_files import private_opener


def env(folder: Path) -> dict[str, str]:
    return {"AI_PROXY_DATA_DIR": str(folder)}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
def test_it_is_made_private_with_its_parents(tmp_path: Path) -> None:
    folder = private_data_folder(env(tmp_path / "a" / "b"))

    assert [mode(path) for path in (folder, folder.parent)] == [0o700, 0o700]


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
def test_one_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)

    assert mode(private_data_folder(env(tmp_path / "data"))) == 0o700


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
@pytest.mark.parametrize("wide", [0o777, 0o770, 0o722, 0o1777])
def test_one_that_others_may_write_to_is_refused_and_left_as_it_is(tmp_path: Path, wide: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(wide)

    with pytest.raises(DataDirError, match=f"other users may write to .* .mode {wide:o}.*run 'chmod 700"):
        owner_id(tmp_path, env(tmp_path / "data"))

    assert mode(tmp_path / "data") == wide
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    os.chown(tmp_path / "data", 10001, 10001)

    with pytest.raises(DataDirError, match=r"belongs to another user .uid 10001.; run ai-proxy as that user"):
        private_data_folder(env(tmp_path / "data"))


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises(DataDirError, match="is not a folder"):
        private_data_folder(env(tmp_path / "data"))


def test_an_own_file_is_not_narrowed_and_a_device_is_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared.log"
    shared.touch()
    shared.chmod(0o640)
    before = mode(Path(os.devnull))

    for path in (shared, Path(os.devnull)):
        os.close(private_opener(str(path), os.O_WRONLY | os.O_CREAT))

    assert (mode(shared), mode(Path(os.devnull))) == (0o640, before)


# The start is refused, since others could reach it and there is no key; its log is made all the same.
COMMANDS = {
    "api-keys create": "api-keys create laptop",
    "api-keys list": "api-keys list",
    "security policy show": "security policy show",
    "proxy status": "proxy status",
    "proxy start": "proxy start --bind 192.0.2.1",
    "check": "check",
    "audit": "audit",
    "backup": "backup create x.tar.gz",
}


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_whatever_command_ran_first_only_the_owner_may_use_what_it_made(
    tmp_path: Path, words: str, umask: int
) -> None:
    data = tmp_path / "above" / "data"
    program = Path(sys.executable).with_name("ai-proxy")

    subprocess.run(
        [program, *words.split()],
        env={
            **os.environ,
            "AI_PROXY_DATA_DIR": str(data),
            "AI_PROXY_RUN_DIR": str(tmp_path / "run"),
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        preexec_fn=lambda: os.umask(umask) and None,
        capture_output=True,
    )

    made = [data.parent, *data.parent.rglob("*")] if data.parent.exists() else []
    wide = {str(path): oct(mode(path)) for path in made if mode(path) != (0o700 if path.is_dir() else 0o600)}
    assert wide == {}
