"""Certificates of a public authority by ACME, with HTTP-01 challenges (RFC 8555)."""

import contextlib
from collections.abc import MutableMapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from acme import challenges as acme_challenges
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from ai_proxy.core.settings import AcmeSettings
from ai_proxy.platform.threads import in_thread
from ai_proxy.tls.certificates import key_pem
from ai_proxy.tls.errors import AcmeError
from ai_proxy.tls.files import write_private

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

PATIENCE = timedelta(seconds=120)
"""How long an authority has to validate the challenges and to issue."""
REQUEST_TIMEOUT = 20
"""Timeout of each request to the authority, in seconds."""
NONCE_TRIES = 10
"""Attempts after a refused nonce; the library itself makes each attempt twice."""


def directory_url(settings: AcmeSettings) -> str:
    """Return the URL of the authority's directory.

    >>> directory_url(AcmeSettings(staging=True))
    'https://acme-staging-v02.api.letsencrypt.org/directory'
    """
    return settings.directory or (LETS_ENCRYPT_STAGING if settings.staging else LETS_ENCRYPT)


def directory_folder(folder: Path, url: str) -> Path:
    """Return the folder of an authority: accounts and certificates belong to one authority.

    >>> directory_folder(Path("acme"), "https://ca.lan:9000/acme/directory").name
    'ca.lan-2ce39451'
    """
    return folder / f"{urlsplit(url).hostname}-{sha256(url.encode()).hexdigest()[:8]}"


class AcmeIssuer:
    """Has one authority issue certificates, under an account of its own.

    Args:
        settings: The authority and the account.
        folder: For the key of the account.
        challenges: Filled with the answers to its challenges, by token; served on port 80 of the domains.
    """

    def __init__(self, settings: AcmeSettings, folder: Path, challenges: MutableMapping[str, bytes]) -> None:
        self._settings = settings
        self._url = directory_url(settings)
        self._folder = folder
        self._challenges = challenges

    def __repr__(self) -> str:
        return f"<AcmeIssuer {self._url}>"

    async def issue(self, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return a certificate for the names with its intermediates, as PEM.

        Raises:
            AcmeError: The authority is unreachable, or refuses.
        """
        return await in_thread(partial(self._issue, names, key), "acme")

    def _issue(self, names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
        try:
            account_key = JWKEC(key=self._account_key())
            with contextlib.closing(self._network(account_key)) as network:
                directory = client.ClientV2.get_directory(self._url, network)
                acme = client.ClientV2(directory, network)
                self._sign_in(acme, account_key)
                return self._order(acme, account_key, _signing_request(names, key))
        except AcmeError:
            raise
        except Exception as error:
            raise _explained(error, self._url) from error

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._folder / "account.pem"
        if not path.exists():
            write_private(path, key_pem(ec.generate_private_key(ec.SECP256R1())))
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AcmeError(f"{path} is not the key of an ACME account; remove it to create a new account")
        return key

    def _network(self, account_key: JWK) -> "_Network":
        agent = f"ai-proxy/{version('ai-inference-proxy')}"
        network = _Network(account_key, alg=ES256, user_agent=agent, timeout=REQUEST_TIMEOUT)
        if self._settings.ca_file:
            # Typed as a boolean; but the library passes it to requests, which accepts a path.
            network.verify_ssl = str(self._settings.ca_file)  # type: ignore[assignment]
        return network

    def _sign_in(self, acme: client.ClientV2, account_key: JWK) -> None:
        """Use the account of this key, or create it and agree to the authority's terms of service."""
        settings, binding = self._settings, None
        if settings.eab_kid:
            binding = messages.ExternalAccountBinding.from_data(
                account_key.public_key(), settings.eab_kid, settings.eab_hmac_key, acme.directory
            )
        elif acme.external_account_required():
            raise AcmeError(
                f"{self._url} requires an external account; get a key id and an HMAC key from its operator,"
                " and set tls.acme.eab_kid and tls.acme.eab_hmac_key"
            )
        registration = messages.NewRegistration.from_data(
            email=settings.email or None, external_account_binding=binding, terms_of_service_agreed=True
        )
        try:
            acme.new_account(registration)
        except errors.ConflictError as known:
            body = messages.Registration()
            acme.net.account = messages.RegistrationResource(uri=known.location, body=body)

    def _order(self, acme: client.ClientV2, account_key: JWK, request: bytes) -> bytes:
        order = acme.new_order(request)
        try:
            for authorization in order.authorizations:
                if authorization.body.status != messages.STATUS_VALID:
                    self._take_challenge(acme, account_key, authorization)
            issued: str = acme.poll_and_finalize(order, datetime.now() + PATIENCE).fullchain_pem  # noqa: DTZ005
            return issued.encode()
        finally:
            self._challenges.clear()

    def _take_challenge(
        self, acme: client.ClientV2, account_key: JWK, authorization: messages.AuthorizationResource
    ) -> None:
        """Provide the answer to a challenge, and have the authority validate it."""
        for challenge in authorization.body.challenges:
            if isinstance(challenge.chall, acme_challenges.HTTP01):
                response, text = challenge.response_and_validation(account_key)
                token: str = challenge.chall.encode("token")
                self._challenges[token] = text.encode()
                acme.answer_challenge(challenge, response)
                return
        name = authorization.body.identifier.value
        raise AcmeError(
            f"{self._url} offers no HTTP-01 challenge for {name}; ai-proxy supports no other kind"
        )


class _Network(client.ClientNetwork):
    """Repeats requests whose nonce was refused (RFC 8555, section 6.5)."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a signed request."""
        for _ in range(NONCE_TRIES - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def _signing_request(names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    extension = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(extension, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def _explained(error: Exception, url: str) -> AcmeError:
    """Return an error that says what is wrong, and what to do."""
    match error:
        case errors.ValidationError():
            return AcmeError(
                f"{url} could not validate the domains: {_refusals(error)};"
                " make port 80 of each domain reach this proxy's tls.redirect_port from the internet"
            )
        case errors.IssuanceError():
            return _explained(error.error, url)
        case messages.Error():
            return AcmeError(
                f"{url} refused: {error.detail or error.description or error.typ}",
                limited=error.code == "rateLimited",
            )
        case errors.TimeoutError():
            return AcmeError(
                f"{url} did not issue a certificate within {PATIENCE.seconds} s; the proxy will retry"
            )
        case requests.RequestException():
            return AcmeError(f"cannot reach {url}: {_root(error)}; check tls.acme.directory and the network")
        case OSError():
            return AcmeError(f"cannot store the key of the ACME account: {error}")
        case _:
            return AcmeError(f"unexpected answer from {url}: {type(error).__name__}: {_root(error)}")


def _refusals(error: errors.ValidationError) -> str:
    return "; ".join(
        f"{authorization.body.identifier.value}: {challenge.error.detail}"
        for authorization in error.failed_authzrs
        for challenge in authorization.body.challenges
        if challenge.error is not None
    )


def _root(error: BaseException) -> BaseException:
    """Return the first cause of an error."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error
