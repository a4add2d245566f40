import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.errors import UnknownPathError, UnknownServiceError
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service
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
    except (UnknownPathError, UnknownServiceError):
        return
    assert path.startswith(b"/")
    assert destination.service_id in ("a", "")


@given(st.from_regex(rb"[!->@-~/]*", fullmatch=True), st.from_regex(rb"(\?[!-~]*)?", fullmatch=True))
def test_what_follows_the_service_is_not_touched(path: bytes, query: bytes) -> None:
    destination, forwarded = table("a", "ab").resolve(b"/service/a/" + path + query)

    assert destination.service_id == "a"
    assert forwarded == b"/" + path + query


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
