"""How clients are made to trust the local authority."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from ai_proxy.cli.main import run
from ai_proxy.tls.authority import authority_files, keep_authority
from ai_proxy.tls.errors import CertificateUnreadableError
from ai_proxy.tls.trust import (
    Command,
    TrustError,
    TrustStore,
    change_trust,
    instructions,
    local_authority,
    trust_store,
)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    keep_authority(tmp_path / "data" / "tls", ("localhost", "gpu"), time.time())
    return authority_files(tmp_path / "data" / "tls").certificate


def test_says_what_to_do_for_every_kind_of_client(authority: Path) -> None:
    fingerprint = local_authority(authority_files(authority.parent))
    store = trust_store(authority, fingerprint, "linux", lambda name: name == "update-ca-certificates")

    text = instructions(authority, fingerprint, store)

    assert fingerprint in text
    assert f"sudo install -m 644 {authority} /usr/local/share/ca-certificates/ai-proxy-" in text
    for client in (
        "curl",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "keytool",
        "Firefox",
    ):
        assert client in text


def test_the_fingerprint_is_the_one_that_others_show(authority: Path) -> None:
    shown = subprocess.run(
        ["openssl", "x509", "-in", authority, "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (
        local_authority(authority_files(authority.parent))
        == shown.partition("=")[2].strip().replace(":", "").lower()
    )


def test_macos_has_its_keychain(authority: Path) -> None:
    store = trust_store(authority, "c0ffee" * 10, "darwin")

    assert store is not None
    assert store.install == (
        (
            "security",
            "add-trusted-cert",
            "-d",
            "-r",
            "trustRoot",
            "-k",
            "/Library/Keychains/System.keychain",
            str(authority),
        ),
    )
    assert store.uninstall == (("security", "remove-trusted-cert", "-d", str(authority)),)


def test_an_unknown_system_is_told_as_such(authority: Path) -> None:
    store = trust_store(authority, "c0ffee" * 10, "linux", lambda _: False)

    assert store is None
    assert "by hand" in instructions(authority, "c0ffee" * 10, store)


def test_without_an_authority_it_says_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(
        CertificateUnreadableError, match=r"start ai-proxy once with tls\.mode dev-selfsigned"
    ):
        local_authority(authority_files(tmp_path))


def test_without_rights_nothing_is_run_and_the_commands_are_shown(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"rights; run:\n  sudo touch '.*done'"):
        change_trust((("touch", str(tmp_path / "is done")),), privileged=False)

    assert list(tmp_path.iterdir()) == []


def test_a_command_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(TrustError, match=r"'ls /no/such' failed: ls: cannot access '/no/such'"):
        change_trust((("ls", "/no/such"),), privileged=True)


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(TrustError, match="'no-such-program' cannot be run"):
        change_trust((("no-such-program",),), privileged=True)


@pytest.mark.skipif(
    shutil.which("update-ca-certificates", path="/usr/sbin:/sbin") is None, reason="needs Debian"
)
def test_debian_trusts_it_and_forgets_it(authority: Path, tmp_path: Path) -> None:
    store = trust_store(authority, "c0ffee" * 10, "linux", lambda name: name == "update-ca-certificates")
    assert store is not None
    given, made = tmp_path / "given", tmp_path / "made"
    (tmp_path / "no-others").touch()
    for folder in (given, made, tmp_path / "none"):
        folder.mkdir()
    trustme.CA().cert_pem.write_to_path(given / "other.crt")

    def here(commands: tuple[Command, ...]) -> tuple[Command, ...]:
        """Have the commands work on folders of this test."""
        none = str(tmp_path / "none")
        options = ["--localcertsdir", str(given), "--etccertsdir", str(made)]
        options += ["--hooksdir", none, "--certsconf", str(tmp_path / "no-others")]
        moved = (
            tuple(word.replace("/usr/local/share/ca-certificates", str(given)) for word in words)
            for words in commands
        )
        return tuple((*words, *options) if "update" in words[0] else words for words in moved)

    private = TrustStore(store.name, here(store.install), here(store.uninstall))

    change_trust(private.install, privileged=True)
    assert authority.read_text().strip() in (made / "ca-certificates.crt").read_text()

    change_trust(private.uninstall, privileged=True)
    assert authority.read_text().strip() not in (made / "ca-certificates.crt").read_text()


def ask(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `ai-proxy tls trust` with a data folder."""
    command = [sys.executable, "-m", "ai_proxy", "tls", "trust", *words]
    env = {**os.environ, "AI_PROXY_DATA_DIR": str(data)}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_the_command_prints_the_instructions(authority: Path) -> None:
    done = ask(authority.parents[1])

    assert done.returncode == 0, done.stderr
    assert f"NODE_EXTRA_CA_CERTS={authority}" in done.stdout


def test_the_command_speaks_to_scripts(authority: Path) -> None:
    data = json.loads(ask(authority.parents[1], "--format", "json").stdout)["data"]

    assert data["certificate"] == str(authority)
    assert len(data["sha256"]) == 64


def test_the_command_without_an_authority_says_so(tmp_path: Path) -> None:
    done = ask(tmp_path)

    assert done.returncode == 1
    assert "there is no local CA" in done.stderr


def test_install_and_uninstall_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tls", "trust", "--install", "--uninstall"]) == 1

    assert "contradict each other" in capsys.readouterr().err
