import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.abilities import Abilities, Rule, Treatment
from ai_proxy.core.errors import InvalidRequestError, UnsupportedParameterError
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import ModelRoute, ModelTable, Offer
from ai_proxy.core.service import ExternalLaunch, Service
from ai_proxy.gateway.inference.prompt import (
    LARGE,
    MAX_MEMBERS,
    MAX_TOKENS,
    UNREADABLE,
    check_members,
    check_one_model,
    fit,
    member_names,
    plain_reader,
    read,
)
from ai_proxy.gateway.routing.table import Destination, ModelDestination

NAMES = st.sampled_from(["model", "stream", "temperature", "seed", "tools", "stop"])
VALUES: st.SearchStrategy[Any] = st.sampled_from([None, 0, -1, 5, 1.5, 1e300, "x", [], True])
RULES = st.dictionaries(
    NAMES.filter(lambda name: name not in ("model", "stream")),
    st.sampled_from([Rule(Treatment.CLAMP, 0, 2), Rule(Treatment.DROP), Rule(Treatment.REJECT)]),
)


def settings(**params: Any) -> Service:
    names: dict[str, Any] = {"models": ("m",), "aliases": {"alias": "m"}}
    return Service("svc", "any", "any", ExternalLaunch(()), "1", **names | params)


SERVICES = st.builds(
    settings,
    set_params=st.dictionaries(NAMES.filter(lambda name: name != "model"), VALUES),
    default_params=st.dictionaries(NAMES.filter(lambda name: name != "model"), VALUES),
    drop_params=st.lists(NAMES.filter(lambda name: name != "model")).map(tuple),
)


def plainly(body: bytes, *rules: dict[str, Rule]) -> tuple[str, bool] | None:
    """Read a request that needs no change; None for any other."""
    try:
        return plain_reader(rules)(body)
    except UNREADABLE:
        return None


def is_passed_on(body: bytes, route: ModelRoute) -> bool:
    target = ModelDestination.of(route, Destination("svc"))
    return bool(target.unchanged) and plainly(body, dict(route.offer.abilities.parameters)) is not None


@given(SERVICES | st.just(settings()), RULES, st.dictionaries(NAMES, VALUES), st.sampled_from(["m", "alias"]))
def test_what_passes_at_once_needs_no_change_and_what_does_not_is_fitted_well(
    service: Service, rules: dict[str, Rule], body: dict[str, Any], name: str
) -> None:
    body |= {"model": name, "stream": body.get("stream") is True}
    route = ModelTable.of([Offer(service, Abilities("Any", parameters=rules), (Model("m"),))]).find(name)
    prompt = read(json.dumps(body).encode())
    passes = is_passed_on(json.dumps(body).encode(), route)

    try:
        fitted, warnings = fit(prompt, route)
    except UnsupportedParameterError:
        assert not passes
        return

    assert not passes or (fitted, warnings) == (None, ())
    sent = body if fitted is None else json.loads(fitted)
    assert sent["model"] == "m"
    assert not any(name in sent for name in service.drop_params)
    for name, value in service.set_params.items():
        assert name in service.drop_params or name in rules or sent[name] == value


OBJECTS = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
    lambda value: json.dumps({"model": "m", "x": value}).encode()
)


@given(st.binary(max_size=60) | OBJECTS)
def test_anything_is_read_or_refused(body: bytes) -> None:
    try:
        prompt = read(body)
    except InvalidRequestError:
        return
    assert prompt.model == json.loads(body)["model"]


SPELLINGS = st.sampled_from(
    ["model", "Model", "MODEL", "mod\\u0065l", "m\\u004fdel", "stream", "Stream", "seed", "x"]
)
SAID = st.sampled_from(['"a"', '"b"', "null", "1", "true", "false", "[]", '"\\ud83d\\ude00"'])


@given(st.lists(st.tuples(SPELLINGS, SAID), max_size=5), RULES, RULES)
def test_what_is_read_in_one_go_is_what_the_full_reading_finds(
    members: list[tuple[str, str]], some: dict[str, Rule], others: dict[str, Rule]
) -> None:
    body = "{{{}}}".format(",".join(f'"{name}": {value}' for name, value in members)).encode()

    plain = plainly(body, some, others)

    if plain is not None:
        prompt = read(body)
        assert plain == (prompt.model, prompt.streamed)
        ruled = {
            name
            for rules in (some, others)
            for name, rule in rules.items()
            if rule.treatment is not Treatment.CLAMP
        }
        assert all(bytes(prompt.fields[name]) == b"null" for name in ruled & prompt.fields.keys())


def test_most_requests_are_read_in_one_go() -> None:
    body = (
        b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}], "temperature": 1}'
    )

    plain = plainly(body, {"temperature": Rule(Treatment.CLAMP, 0, 2)})

    assert plain == ("m", True)


@given(
    st.dictionaries(
        st.text(max_size=9), VALUES | st.lists(st.dictionaries(st.text(max_size=9), VALUES), max_size=3)
    )
)
def test_the_names_of_members_are_told_from_what_is_in_them(members: dict[str, Any]) -> None:
    for text in (json.dumps(members), json.dumps(members, indent=1, ensure_ascii=False)):
        names = [json.loads(name.rstrip(b" :")) for name in member_names(text.encode("utf-8", "replace"))]

        assert len(names) == len(members)


@pytest.mark.threat("a limited key", "another model's answers")
@given(st.lists(st.sampled_from(["model", "mod\\u0065l", "\\u004Dodel", "x", "models"]), min_size=1))
def test_a_second_model_is_refused_in_every_spelling(names: list[str]) -> None:
    body = ("{" + ",".join(f'"{name}": "m"' for name in names) + "}").encode()
    twice = sum(json.loads(f'"{name}"').lower() == "model" for name in names) > 1

    assert not twice or plainly(body) is None
    try:
        check_one_model(body)
    except InvalidRequestError:
        assert twice
    else:
        assert not twice


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
def test_a_body_of_too_many_members_is_refused_before_it_is_read() -> None:
    many = ",".join(f'"{number:x}" :1' for number in range(60_000))

    with pytest.raises(InvalidRequestError, match=f"{MAX_MEMBERS} members"):
        check_members(b'{"model":"m",%b}' % many.encode())

    check_members(b'{"model":"m","metadata":{%b}}' % many.encode())


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
def test_a_body_of_too_many_brackets_is_not_walked_to_its_end() -> None:
    twice = b'{"a":{"model":"x"},"b":{"model":"y"},"model":"m","x":[%b]}'

    with pytest.raises(InvalidRequestError, match=f"{MAX_TOKENS} brackets"):
        check_members(b'{"model":"m","x":[%b]}' % (b"{}," * (MAX_TOKENS + 1)))
    with pytest.raises(InvalidRequestError, match="strings and brackets"):
        check_one_model(twice % (b"[]," * (MAX_TOKENS // 2)))


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("unit", [b'" :', b'"model":1,', b'"model":{},', b'"'])
def test_searching_names_takes_no_memory(unit: bytes) -> None:
    body = b'{"model":"m","\\u0041":' + unit * (1_000_000 // len(unit))

    tracemalloc.start()
    for check in (check_one_model, check_members):
        with suppress(InvalidRequestError):
            check(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 100_000


@pytest.mark.threat("a limited key", "another model's answers")
@given(
    st.integers(-40, 40),
    st.sampled_from([b'"model"', b'"\\u006dodel"', b'"\\u006D\\u006f\\u0064\\u0065\\u006c"']),
)
def test_a_second_model_is_found_wherever_it_stands_in_a_large_body(offset: int, name: bytes) -> None:
    begun = b'{"model":"a","x":"'
    text = b"y" * (LARGE - len(begun) - 2 + offset)

    with pytest.raises(InvalidRequestError, match="once"):
        check_one_model(begun + text + b'",' + name + b':"b"}')
