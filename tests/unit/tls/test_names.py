"""By what names a machine is reached."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.tls.certificates import general_name
from ai_proxy.tls.names import LOOPBACK, machine_names, usable_names

NAMES = st.one_of(
    st.text(max_size=70), st.from_regex(r"[A-Za-z0-9.-]{1,70}", fullmatch=True), st.ip_addresses().map(str)
)


def ip_or_text(name: str) -> object:
    try:
        return ip_address(name)
    except ValueError:
        return name


def test_a_machine_knows_itself_first_of_all_as_localhost() -> None:
    names = machine_names(["gpu.example.com", "10.9.9.9"])

    assert names[:3] == LOOPBACK
    assert {"gpu.example.com", "10.9.9.9"} < set(names)


@given(st.lists(NAMES))
def test_whatever_is_usable_can_stand_in_a_certificate(candidates: list[str]) -> None:
    names = usable_names(candidates)

    assert {general_name(name).value for name in names} == {ip_or_text(name) for name in names}
    assert len(set(names)) == len(names)
    assert usable_names(names) == names


@given(st.ip_addresses())
def test_every_address_that_can_be_connected_to_is_usable(address: object) -> None:
    parsed = ip_address(str(address))
    reachable = not (parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)

    assert usable_names([str(address)]) == ((str(address),) if reachable else ())


def test_what_is_no_name_is_left_out() -> None:
    assert usable_names(["", "-", "a b", "a..b", "x" * 64, "1.2.3.4.5", "under_score", "héllo", "a\n"]) == ()
