from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.policy import (
    Cors,
    client_address,
    cors_headers,
    is_allowed,
    is_local_host,
    is_own_page,
    parse_address,
    preflight,
)

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:a::/48"))
PAGE = "https://chat.example.com"
NAMED = Cors(origins=(PAGE,))
OURS = ["10.0.0.1", "10.2.3.4"]
addresses = st.ip_addresses().map(str)


@given(st.ip_addresses(v=4))
def test_ipv4_within_ipv6_is_ipv4(address: object) -> None:
    assert parse_address(f"::ffff:{address}") == address


@given(st.text(max_size=50))
def test_whatever_is_sent_as_an_address_is_one_or_none(text: str) -> None:
    parsed = parse_address(text)

    assert parsed is None or parse_address(str(parsed)) == parsed


def test_a_zone_does_not_hide_an_address() -> None:
    assert parse_address("fe80::1%eth0") == ip_address("fe80::1")


@pytest.mark.parametrize(
    "text", ["[::1]x", "[::1", "10.0.0.1:80x", "10.0.0.1%eth0", "10.0.0.1:80:90", "[]", ":", "010.0.0.1", "1"]
)
def test_what_is_only_like_an_address_is_none(text: str) -> None:
    assert parse_address(text) is None


@given(st.text(max_size=30), st.text(max_size=20))
def test_a_page_is_ours_only_where_it_is_said_in_full(text: str, host: str) -> None:
    assert not is_own_page(text.replace("://", ""), host)
    assert not is_own_page(f"https://{text}.evil.example", host)


@given(st.ip_addresses())
def test_a_page_at_an_address_is_ours_only_on_this_machine(address: IPv4Address | IPv6Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)

    assert is_own_page(f"http://{host}:3000", "127.0.0.1:11000") == address.is_loopback
    assert is_own_page(f"http://{host}:3000", f"{host}:3000")


def test_the_allowlist_lets_in_who_is_in_it_and_everybody_when_empty() -> None:
    allowlist = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))

    assert is_allowed(parse_address("::ffff:192.0.2.9"), allowlist)
    assert is_allowed(parse_address("2001:db8:9::1"), allowlist)
    assert not is_allowed(parse_address("192.0.3.1"), allowlist)
    assert not is_allowed(None, allowlist)
    assert is_allowed(None, ())


@given(addresses, st.lists(st.text(max_size=40), max_size=5))
def test_nobody_but_a_trusted_proxy_is_believed(peer: str, forwarded: list[str]) -> None:
    assert client_address(peer, forwarded, ()) == str(parse_address(peer))


@given(
    addresses,
    st.lists(addresses, max_size=4),
    st.lists(st.sampled_from(["10.0.0.1", "10.2.3.4"]), max_size=3),
)
def test_what_a_client_claims_of_itself_is_never_believed(
    client: str, claimed: list[str], chain: list[str]
) -> None:
    if is_allowed(parse_address(client), PROXIES):
        return

    seen = client_address("10.0.0.1", [", ".join([*claimed, client, *chain])], PROXIES)

    assert seen == str(parse_address(client))
    assert seen not in OURS


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["1.1.1.1"], "1.1.1.1"),
        (["1.1.1.1", "2.2.2.2"], "2.2.2.2"),
        (["1.1.1.1,10.9.9.9"], "1.1.1.1"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["1.1.1.1, unknown"], "10.0.0.1"),
        (["1.1.1.1, , 10.3.3.3"], "10.3.3.3"),
        (['"[2001:db8::5]:4711"'], "2001:db8::5"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_ours(forwarded: list[str], client: str) -> None:
    assert client_address("10.0.0.1", forwarded, PROXIES) == client


def test_a_named_page_may_ask_and_call() -> None:
    answer = preflight(NAMED, PAGE, "POST", "Authorization, X-Custom")

    assert answer.allowed
    headers = dict(answer.headers)
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Headers"] == "authorization, x-custom"
    assert headers["Vary"].startswith("Origin")
    assert dict(cors_headers(NAMED, PAGE))["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    ("cors", "origin", "method", "wanted", "reason"),
    [
        (NAMED, "https://evil.example", "POST", "", "does not allow the origin"),
        (NAMED, "https://chat.example.com.evil.example", "POST", "", "does not allow the origin"),
        (NAMED, "null", "POST", "", "does not allow the origin"),
        (Cors(), PAGE, "GET", "", "does not allow the origin"),
        (NAMED, PAGE, "TRACE", "", "TRACE"),
        (Cors((PAGE,), headers=("content-type",)), PAGE, "POST", "content-type, x-evil", "send x-evil"),
    ],
)
def test_any_other_page_is_refused_and_told_nothing(
    cors: Cors, origin: str, method: str, wanted: str, reason: str
) -> None:
    answer = preflight(cors, origin, method, wanted)

    assert not answer.allowed
    assert reason in answer.reason
    assert "Access-Control-Allow-Origin" not in dict(answer.headers)


def test_a_page_that_is_not_named_gets_no_headers_but_caches_are_told_that_it_depends() -> None:
    assert cors_headers(NAMED, "https://evil.example") == (("Vary", "Origin"),)
    assert cors_headers(Cors(), PAGE) == ()


def test_every_page_may_call_without_logins() -> None:
    headers = dict(cors_headers(Cors(origins=("*",)), "null"))

    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_logins_are_allowed_to_a_named_page_only() -> None:
    headers = dict(cors_headers(Cors(origins=(PAGE,), credentials=True), PAGE))

    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "evil.example:11000"]
)
def test_a_name_that_can_be_rebound_is_not_local(host: str) -> None:
    assert not is_local_host(host)
