import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.errors import MalformedRequestError, UnknownPathError, UnknownServiceError
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service
from ai_proxy.gateway.http.wire import leads_up
from ai_proxy.gateway.inference.prompt import plain_reader
from ai_proxy.gateway.routing.table import Destination, RoutingTable


def table(*services: str) -> RoutingTable:
    return RoutingTable.of(
        (
            Offer(
                Service(s, "generic", "generic", ExternalLaunch(()), "hash", response_timeout=7.0),
                Abilities("any HTTP server"),
            )
            for s in services
        ),
        Destination(""),
        plain_reader(()),
    )


@given(st.binary())
def test_every_target_has_a_destination_or_an_error(target: bytes) -> None:
    try:
        destination, path = table("a").resolve(target)
    except (MalformedRequestError, UnknownPathError, UnknownServiceError):
        return
    assert path.startswith(b"/")
    assert destination.service_id in ("a", "")


@given(st.from_regex(rb"[!->@-~/]*", fullmatch=True), st.from_regex(rb"(\?[!-~]*)?", fullmatch=True))
def test_what_follows_the_service_is_not_touched(path: bytes, query: bytes) -> None:
    assume(not leads_up(b"/" + path))

    destination, forwarded = table("a", "ab").resolve(b"/service/a/" + path + query)

    assert destination.service_id == "a"
    assert forwarded == b"/" + path + query


UP = (b"..", b"%2e%2e", b".%2E", b"%252e%252e")
SLASHES = (b"/", b"%2f", b"\\", b"%5C", b"%252f")


@pytest.mark.threat("a limited key", "another service behind the same address")
@pytest.mark.parametrize("prefix", [b"/service/a/", b"http://gpu/service/a/"])
@pytest.mark.parametrize("up", UP)
@given(
    before=st.from_regex(rb"([a-z]{0,3}/)?", fullmatch=True),
    after=st.sampled_from([b"", b"?x", b";x", b"%3bx", *(slash + b"b/secret" for slash in SLASHES)]),
)
def test_no_path_leads_out_of_its_service(prefix: bytes, up: bytes, before: bytes, after: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        table("a").resolve(prefix + before + up + after)


@pytest.mark.parametrize("path", [b"/v1/x..y", b"/.well-known/a", b"/x?to=/../b", b"/a/...", b"/%2e%2ex"])
def test_dots_that_are_no_segment_of_their_own_are_passed_on(path: bytes) -> None:
    assert table("a").resolve(b"/service/a" + path)[1] == path


def test_a_destination_carries_the_time_limits_of_its_service() -> None:
    destination, _ = table("a").resolve(b"/service/a/")

    assert destination.response_timeout == 7.0


@pytest.mark.parametrize(
    "target", [b"/service/b/", b"/service/", b"/service//", b"/service/A/", b"/service/a%2f/"]
)
def test_an_undeclared_service_is_unknown(target: bytes) -> None:
    with pytest.raises(UnknownServiceError):
        table("a").resolve(target)


@pytest.mark.parametrize("target", [b"", b"*", b"/services/a/", b"x", b"http:", b"/apis", b"/v2"])
def test_any_other_path_is_unknown(target: bytes) -> None:
    with pytest.raises(UnknownPathError, match="/service/"):
        table("a").resolve(target)
