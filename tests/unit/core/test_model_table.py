import itertools
import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import ModelTable, Offer, near_names
from ai_proxy.core.service import ExternalLaunch, ProcessLaunch, Service

NAMES = st.sampled_from(["a", "b", "c", "a/b", "org/a", "a:7b"])


def offer(service_id: str, listed: tuple[str, ...] = (), **facts: Any) -> Offer:
    plain: dict[str, Any] = {
        "type": "any",
        "engine": "plain",
        "launch": ExternalLaunch(()),
        "config_hash": "1",
    }
    service = Service(id=service_id, **plain | facts)
    return Offer(service, Abilities("Plain"), tuple(Model(name) for name in listed))


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    ids = draw(st.lists(st.sampled_from("abcd"), unique=True))
    return [
        offer(
            service_id,
            tuple(draw(st.lists(NAMES, unique=True, max_size=3))),
            models=tuple(draw(st.lists(NAMES, unique=True, max_size=2))),
            aliases=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
            engine=draw(st.sampled_from(["x", "y"])),
        )
        for service_id in ids
    ]


@given(offers(), st.text(string.ascii_lowercase + "/:", max_size=8) | NAMES)
def test_every_name_has_one_place_or_an_error(found: list[Offer], name: str) -> None:
    table = ModelTable.of(found)

    try:
        route = table.find(name)
    except UnknownModelError:
        assert name not in table.routes
        return
    assert route.offer in found
    assert route.target


@given(offers())
def test_every_name_that_is_listed_can_be_asked_for(found: list[Offer]) -> None:
    table = ModelTable.of(found)

    for name, route in table.routes.items():
        assert table.find(name) is route
        assert name not in table.contested


@given(offers())
def test_a_service_and_a_model_it_lists_always_lead_there(found: list[Offer]) -> None:
    table = ModelTable.of(found)

    for one in found:
        for model in one.listed:
            name = f"{one.service.id}/{model.id}"
            if name not in table.routes and name not in table.contested:
                assert table.find(name).offer is one


def test_a_declared_name_wins_over_an_id_and_that_over_what_an_engine_lists() -> None:
    declaring, named, listing = offer("one", models=("x",)), offer("x"), offer("three", ("x", "y"))

    assert ModelTable.of([listing, named, declaring]).find("x").offer is declaring
    assert ModelTable.of([listing, named]).find("x").offer is named
    assert ModelTable.of([listing]).find("x").offer is listing


@pytest.mark.threat("a local user", "requests for another service")
def test_a_declared_service_wins_over_one_that_was_found_running() -> None:
    declared, found = offer("one", ("phi",)), replace(offer("two", ("phi", "qwen")), found=True)

    table = ModelTable.of([found, declared])

    assert table.find("phi").offer is declared
    assert table.find("qwen").offer is found
    assert table.find("two/phi").offer is found


@pytest.mark.threat("a backend", "requests for another service")
@pytest.mark.parametrize("name", ["one", "one/phi", "one/other", "flm://plain/phi"])
def test_a_list_takes_no_name_that_selects_another_service(name: str) -> None:
    never_ran = offer("one", models=("m",))
    table = ModelTable.of([offer("two", (name, "phi")), never_ran])

    assert name not in table.routes
    assert name not in table.contested
    assert table.find(f"two/{name}").target == name


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_thousands_of_models_are_found_by_their_names() -> None:
    names = tuple(f"m{number}" for number in range(50_000))

    table = ModelTable.of([offer("one", names)])

    assert len(table.routes) == len(names) + 1
    assert table.find("m49999").target == "m49999"


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_the_search_for_near_names_is_bounded() -> None:
    hostile = ("".join(pair) * 50 for pair in itertools.permutations(string.ascii_lowercase, 2))
    many = (f"{name}{number}" for name in hostile for number in range(1000))

    near = near_names("lama3", itertools.chain(["llama3"], many))

    assert near == ("llama3",)
    assert next(many)  # it did not look at all of them


def test_declared_names_stand_instead_of_what_the_engine_lists() -> None:
    table = ModelTable.of([offer("one", ("llama3:8b",), models=("llama3",))])

    assert list(table.routes) == ["llama3"]
    assert table.find("one/llama3:8b").target == "llama3:8b"


@pytest.mark.parametrize(
    ("listed", "aliases", "name", "target"),
    [
        ((), {}, "m", "m"),
        (("file.gguf",), {}, "m", "file.gguf"),
        (("m", "n"), {}, "m", "m"),
        (("a", "b"), {}, "m", "m"),
        (("a", "b"), {"m": "b"}, "m", "b"),
    ],
    ids=["never ran", "has one model", "lists it", "lists others", "an alias"],
)
def test_an_engine_is_asked_for_what_it_calls_the_model(
    listed: tuple[str, ...], aliases: dict[str, str], name: str, target: str
) -> None:
    assert ModelTable.of([offer("s", listed, models=("m",), aliases=aliases)]).find(name).target == target


def test_an_engine_in_the_name_chooses_among_those_that_know_the_model() -> None:
    one, two = offer("one", ("qwen",), engine="vllm"), offer("two", ("phi",), engine="vllm")
    table = ModelTable.of([one, two, offer("three", ("phi",))])

    assert table.find("flm://vllm/phi").offer is two


@pytest.mark.threat("a backend", "requests for another service")
def test_a_list_takes_no_model_of_an_engine_from_a_service_that_never_ran() -> None:
    table = ModelTable.of([offer("one", engine="vllm"), offer("two", ("phi",), engine="vllm")])

    with pytest.raises(UnknownModelError, match="one/phi or two/phi"):
        table.find("flm://vllm/phi")


def test_an_engine_in_the_name_that_two_services_have_is_not_enough() -> None:
    table = ModelTable.of([offer("one", ("phi",)), offer("two", ("phi",))])

    with pytest.raises(UnknownModelError, match="one/phi or two/phi"):
        table.find("flm://plain/phi")


PROCESS = ProcessLaunch(("serve",))


@pytest.mark.threat("a limited key", "the start of a service outside its models")
@pytest.mark.parametrize("name", ["box/m1", "flm://plain/m1", "flm://box/m1"])
def test_a_service_that_has_listed_nothing_yet_may_have_any_model_but_no_limited_key_gets_there(
    name: str,
) -> None:
    table = ModelTable.of([offer("box", launch=PROCESS), offer("real", ("m2",))])

    route = table.find(name)

    assert route.offer.service.id == "box"
    assert "m1" not in route.names


@pytest.mark.parametrize("name", ["box", "box/box", "flm://plain/box"])
def test_a_service_that_has_listed_nothing_yet_answers_to_its_own_name(name: str) -> None:
    assert ModelTable.of([offer("box", launch=PROCESS)]).find(name).offer.service.id == "box"


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("name", ["box/m1", "flm://box/m1"])
def test_the_name_of_a_model_allows_no_other_service_that_takes_any_name(name: str) -> None:
    table = ModelTable.of([offer("box"), offer("real", ("m1",))])

    assert "m1" not in table.find(name).names
    assert "m1" in table.find("real/m1").names


@pytest.mark.threat("a limited key", "another model's answers")
def test_a_name_that_two_services_list_allows_neither() -> None:
    table = ModelTable.of([offer("one", ("m1",)), offer("two", ("m1",))])

    assert table.find("one/m1").names == ("one/m1", "one/m1")


def test_the_name_of_a_model_allows_a_service_that_declares_it() -> None:
    table = ModelTable.of(
        [offer("box", aliases={"fast": "m1"}, models=("m1",)), offer("two", models=("m1",))]
    )

    assert "m1" in table.find("box/fast").names


def test_an_unknown_name_is_told_with_near_ones() -> None:
    table = ModelTable.of([offer("llama3"), offer("coder")])

    with pytest.raises(UnknownModelError) as raised:
        table.find("lama3")

    assert raised.value.near == ("llama3",)
