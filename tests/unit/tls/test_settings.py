"""The `tls:` section."""

from pathlib import Path

import pytest

from ai_proxy.config.build import tls_settings
from ai_proxy.config.load import load
from ai_proxy.config.schema import Config
from ai_proxy.config.show import show, to_yaml
from ai_proxy.core.settings import AcmeSettings, TlsMode, TlsSettings
from ai_proxy.tls.certificates import PemFiles

ACME = """
server: {port: 443}
tls:
  mode: https-acme
  redirect_port: 8080
  acme:
    domains: [GPU.example.com, llm.example.com]
    email: admin@example.com
    directory: https://ca.lan:9000/acme/directory
    eab_kid: kid-1
    eab_hmac_key: "${env:KEY}"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_without_a_section_there_is_no_tls() -> None:
    assert tls_settings(Config()) == TlsSettings()


def test_a_public_certificate_is_described(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, ACME), {"KEY": "verysecret"})

    assert tls_settings(loaded.config) == TlsSettings(
        TlsMode.HTTPS_ACME,
        redirect_port=8080,
        acme=AcmeSettings(
            ("gpu.example.com", "llm.example.com"),
            "admin@example.com",
            "https://ca.lan:9000/acme/directory",
            eab_kid="kid-1",
            eab_hmac_key="verysecret",
        ),
    )


def test_the_key_of_an_account_is_not_shown(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, ACME), {"KEY": "verysecret"})

    shown = to_yaml(show(loaded))

    assert "${env:KEY}" in shown
    assert "verysecret" not in shown + repr(loaded.config) + repr(tls_settings(loaded.config))


def test_files_begin_beside_the_configuration(files: PemFiles) -> None:
    text = "tls: {mode: files, certificate: ./cert.pem, key: key.pem}"
    loaded = load(written(files.certificate.parent, text), {})

    settings = tls_settings(loaded.config)

    assert (settings.certificate, settings.key) == (files.certificate, files.key)


@pytest.mark.parametrize("mode", list(TlsMode))
def test_every_mode_can_be_written(tmp_path: Path, mode: TlsMode, files: PemFiles) -> None:
    text = f"tls: {{mode: {mode}, certificate: cert.pem, key: key.pem, acme: {{domains: [a.example]}}}}"

    assert tls_settings(load(written(tmp_path, text), {}).config).mode is mode


@pytest.mark.parametrize(
    ("settings", "public"),
    [
        (TlsSettings(), False),
        (TlsSettings(TlsMode.DEV_SELFSIGNED), False),
        (TlsSettings(TlsMode.FILES), True),
        (TlsSettings(TlsMode.HTTPS_ACME), True),
        (TlsSettings(TlsMode.HTTPS_ACME, acme=AcmeSettings(staging=True)), False),
    ],
)
def test_only_certificates_that_clients_trust_of_themselves_are_public(
    settings: TlsSettings, public: bool
) -> None:
    assert settings.is_public is public
