"""Certificates by which an engine and its clients know each other over TCP."""

from pathlib import Path

import trustme


def make_certificates(folder: Path, *addresses: str) -> None:
    """Make certificates of an engine at these addresses, in `server`, and of a client, in `client`."""
    authority = trustme.CA()
    for name, certificate in (
        ("server", authority.issue_cert(*addresses)),
        ("client", authority.issue_cert("client")),
    ):
        (folder / name).mkdir(parents=True)
        authority.cert_pem.write_to_path(folder / name / "ca.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / name / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / name / "key.pem")


def tls_options(folder: Path, url: str) -> list[str]:
    """Return dockerd's options to listen on a URL as well, for those who have a certificate."""
    server = folder / "server"
    return [
        f"--host={url}",
        "--tlsverify",
        f"--tlscacert={server / 'ca.pem'}",
        f"--tlscert={server / 'cert.pem'}",
        f"--tlskey={server / 'key.pem'}",
    ]
