import time
from pathlib import Path

import pytest
import trustme

from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.certificates import PemFiles


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at this moment, so that certificates made by others are valid."""
    return FakeClock(time.time() - FakeClock(0).wall())


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> PemFiles:
    """A certificate and its key, in files of their own."""
    issued = ca.issue_cert("gpu.example.com", "10.0.0.5")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return PemFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
