"""Where certificates come from, and when new ones are made."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from loguru import logger
from tests.unit.tls.fake_issuer import FakeIssuer

from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.authority import authority_files
from ai_proxy.tls.certificates import Certificate, PemFiles, read_certificate
from ai_proxy.tls.errors import AcmeError, CertificateDateError
from ai_proxy.tls.sources import LocalCertificate, OwnFiles, PublicCertificate

DOMAINS = ("gpu.example.com", "llm.example.com")
DAY = 86_400.0


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture
def issuer(clock: FakeClock) -> FakeIssuer:
    return FakeIssuer(clock)


@pytest.fixture
def public(issuer: FakeIssuer, tmp_path: Path, clock: FakeClock) -> PublicCertificate:
    return PublicCertificate(issuer, DOMAINS, tmp_path, clock)


def local(folder: Path, clock: FakeClock, *names: str) -> LocalCertificate:
    return LocalCertificate(folder, folder / "server.pem", names, clock)


def used(source: LocalCertificate | PublicCertificate) -> Certificate:
    return read_certificate(source.files)


class TestOwnFiles:
    async def test_good_ones_are_looked_at_again_soon(self, files: PemFiles, clock: FakeClock) -> None:
        assert await OwnFiles(files, clock).renew() == 10

    async def test_expired_ones_are_refused(self, files: PemFiles, clock: FakeClock) -> None:
        await clock.advance(read_certificate(files).ends - clock.wall())

        with pytest.raises(CertificateDateError, match="expired on"):
            await OwnFiles(files, clock).renew()


class TestLocalCertificate:
    async def test_is_made_for_the_machine_and_what_it_is_told(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        source = local(tmp_path, clock, "gpu.example.com")

        await source.renew()

        assert {"localhost", "127.0.0.1", "::1", "gpu.example.com"} <= used(source).names
        assert used(source).issuer.startswith("ai-proxy local CA")

    async def test_stays_while_it_is_good(self, tmp_path: Path, clock: FakeClock) -> None:
        source = local(tmp_path, clock)
        await source.renew()
        first = used(source)

        await clock.advance(59 * DAY)
        await source.renew()

        assert used(source) == first

    async def test_is_replaced_before_it_expires_by_the_same_authority(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        source = local(tmp_path, clock)
        await source.renew()
        first, authority = used(source), authority_files(tmp_path).certificate.read_bytes()

        await clock.advance(61 * DAY)
        await source.renew()

        assert used(source).ends > first.ends
        assert authority_files(tmp_path).certificate.read_bytes() == authority

    async def test_is_replaced_when_names_are_added(self, tmp_path: Path, clock: FakeClock) -> None:
        await local(tmp_path, clock).renew()
        source = local(tmp_path, clock, "gpu.lan")

        await source.renew()

        assert "gpu.lan" in used(source).names

    async def test_leaves_out_what_the_authority_may_not_vouch_for_and_says_so_once(
        self, tmp_path: Path, clock: FakeClock, log: list[str]
    ) -> None:
        await local(tmp_path, clock).renew()
        source = local(tmp_path, clock, "gpu.example.com")

        await source.renew()
        await source.renew()

        assert "gpu.example.com" not in used(source).names
        (line,) = log
        assert line.startswith("the local CA cannot issue certificates for gpu.example.com")

    @pytest.mark.parametrize("content", [b"", b"nonsense"])
    async def test_is_made_anew_when_it_is_damaged(
        self, tmp_path: Path, clock: FakeClock, content: bytes
    ) -> None:
        source = local(tmp_path, clock)
        await source.renew()
        source.files.certificate.write_bytes(content)

        await source.renew()

        assert "localhost" in used(source).names

    async def test_is_made_anew_when_the_authority_is(self, tmp_path: Path, clock: FakeClock) -> None:
        source = local(tmp_path, clock)
        await source.renew()
        first = used(source)
        authority_files(tmp_path).certificate.unlink()

        await source.renew()

        assert used(source).serial != first.serial


class TestPublicCertificate:
    async def test_is_asked_for_once_and_kept(
        self, public: PublicCertificate, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock
    ) -> None:
        assert await public.renew() == 3600
        await PublicCertificate(issuer, DOMAINS, tmp_path, clock).renew()

        assert issuer.asked == [DOMAINS]
        assert used(public).names == set(DOMAINS)
        assert oct(public.files.certificate.stat().st_mode & 0o777) == "0o600"

    async def test_is_renewed_when_a_third_of_its_life_is_left(
        self, public: PublicCertificate, issuer: FakeIssuer, clock: FakeClock
    ) -> None:
        await public.renew()

        await clock.advance(60 * DAY - 1)
        await public.renew()
        assert len(issuer.asked) == 1

        await clock.advance(2)
        await public.renew()
        assert len(issuer.asked) == 2

    async def test_the_old_one_stays_when_renewal_fails_and_it_is_said(
        self, public: PublicCertificate, issuer: FakeIssuer, clock: FakeClock, log: list[str]
    ) -> None:
        await public.renew()
        first = used(public)
        issuer.error = AcmeError("the authority is away")
        await clock.advance(61 * DAY)

        pause = await public.renew()

        assert used(public) == first
        assert pause == 60
        (line,) = log
        assert "no new TLS certificate for gpu.example.com, llm.example.com: the authority is away" in line
        assert "the current one stays in use; it is valid until" in line

    async def test_an_expired_one_is_better_than_none(
        self, public: PublicCertificate, issuer: FakeIssuer, clock: FakeClock
    ) -> None:
        await public.renew()
        first = used(public)
        issuer.error = AcmeError("the authority is away")
        await clock.advance(100 * DAY)

        await public.renew()

        assert used(public) == first

    async def test_tries_get_rarer_and_end_with_success(
        self, public: PublicCertificate, issuer: FakeIssuer, clock: FakeClock
    ) -> None:
        issuer.error = AcmeError("refused")
        pauses = []
        for _ in range(4):
            pauses.append(await public.renew())
            await clock.advance(pauses[-1])
        issuer.error = None
        await clock.advance(DAY)

        await public.renew()

        assert pauses == [60, 240, 960, 3600]
        assert used(public).issuer == "Fake CA"
        assert not list(public.files.certificate.parent.glob("*.failures.json"))

    async def test_when_there_were_too_many_tries_an_hour_passes(
        self, public: PublicCertificate, issuer: FakeIssuer
    ) -> None:
        issuer.error = AcmeError("too many", limited=True)

        assert await public.renew() == 3600

    async def test_a_restart_does_not_try_sooner(
        self, public: PublicCertificate, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock, log: list[str]
    ) -> None:
        issuer.error = AcmeError("refused")
        await public.renew()

        await clock.advance(59)
        await PublicCertificate(issuer, DOMAINS, tmp_path, clock).renew()
        assert len(issuer.asked) == 1
        assert "to retry at once, remove" in log[-1]

        await clock.advance(2)
        await PublicCertificate(issuer, DOMAINS, tmp_path, clock).renew()
        assert len(issuer.asked) == 2

    async def test_a_try_that_the_end_of_the_proxy_cut_off_counts(
        self, public: PublicCertificate, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock
    ) -> None:
        class CutOffError(BaseException):
            """As a signal would."""

        issuer.error = CutOffError()  # type: ignore[assignment]
        with pytest.raises(CutOffError):
            await public.renew()
        issuer.error = None

        await PublicCertificate(issuer, DOMAINS, tmp_path, clock).renew()

        assert len(issuer.asked) == 1

    async def test_until_there_is_one_another_stands_in(
        self, public: PublicCertificate, issuer: FakeIssuer, clock: FakeClock
    ) -> None:
        issuer.error = AcmeError("refused")

        await public.renew()

        assert used(public).issuer == "ai-proxy, temporary"
        assert used(public).names == set(DOMAINS)

    @pytest.mark.parametrize("chain", [b"", b"nonsense"])
    async def test_what_is_no_certificate_is_a_failure(
        self, public: PublicCertificate, issuer: FakeIssuer, chain: bytes, log: list[str]
    ) -> None:
        issuer.chain = chain or b"\n"

        await public.renew()

        assert "the authority did not issue a PEM certificate" in log[0]

    async def test_one_for_other_names_is_a_failure(
        self, public: PublicCertificate, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock, log: list[str]
    ) -> None:
        other = FakeIssuer(clock)
        alien = PublicCertificate(other, ["gpu.example.com"], tmp_path / "other", clock)
        await alien.renew()
        issuer.chain = alien.files.certificate.read_bytes()

        await public.renew()

        assert "the issued certificate lacks llm.example.com" in log[0]
        assert used(public).issuer == "ai-proxy, temporary"

    async def test_however_short_certificates_live_a_minute_passes_between_two(
        self, public: PublicCertificate, issuer: FakeIssuer
    ) -> None:
        issuer.life = timedelta(seconds=3)

        assert await public.renew() == 60

    async def test_a_new_domain_makes_a_new_certificate(
        self, public: PublicCertificate, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock
    ) -> None:
        await public.renew()
        wider = PublicCertificate(issuer, (*DOMAINS, "new.example.com"), tmp_path, clock)

        await wider.renew()

        assert "new.example.com" in used(wider).names

    async def test_nothing_is_asked_for_that_could_not_be_kept(
        self, issuer: FakeIssuer, tmp_path: Path, clock: FakeClock
    ) -> None:
        (tmp_path / "file").touch()
        public = PublicCertificate(issuer, DOMAINS, tmp_path / "file" / "acme", clock)

        with pytest.raises(NotADirectoryError):
            await public.renew()

        assert issuer.asked == []
