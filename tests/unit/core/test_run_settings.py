import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.options import LogLevel
from ai_proxy.core.run_settings import (
    SETTINGS,
    InvalidSettingError,
    Kind,
    RunSettings,
    SettingSpec,
    UnknownSettingError,
    made,
    overlaid,
    setting_spec,
)
from ai_proxy.core.settings import EngineSettings

BASE = RunSettings(EngineSettings(max_network_failures=9, cache_ttl=30.0), LogLevel.WARNING)
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.lists(st.none())
)


def values(spec: SettingSpec) -> st.SearchStrategy[object]:
    match spec.kind:
        case Kind.FLAG:
            return st.booleans()
        case Kind.CHOICE:
            return st.sampled_from(spec.choices)
        case Kind.DURATION:
            return st.integers(int(spec.low * 1000), int(spec.high * 1000)).map(lambda ms: ms / 1000)
    return st.integers(int(spec.low), int(spec.high))


SPECS_AND_VALUES = st.sampled_from(list(SETTINGS.values())).flatmap(
    lambda one: st.tuples(st.just(one), values(one))
)


@given(SPECS_AND_VALUES)
def test_what_is_written_is_read_as_it_was(given: tuple[SettingSpec, bool | int | float | str]) -> None:
    one, value = given

    assert one.read(value) == value
    assert one.read(one.write(value)) == value


@given(SPECS_AND_VALUES)
def test_what_is_stored_comes_before_what_the_configuration_says(
    given: tuple[SettingSpec, bool | int | float | str],
) -> None:
    one, value = given

    settings = overlaid(BASE, {one.name: value})

    assert settings.value(one.name) == value
    assert all(settings.value(name) == BASE.value(name) for name in SETTINGS if name != one.name)


@given(st.dictionaries(st.sampled_from([*SETTINGS, "security.pepper_fingerprint", "x"]), ANYTHING))
def test_what_is_stored_and_makes_no_sense_is_as_if_it_were_not_there(stored: dict[str, object]) -> None:
    settings = overlaid(BASE, stored)

    kept = made(stored)
    assert kept.keys() <= SETTINGS.keys()
    assert {name: settings.value(name) for name in SETTINGS} == {
        name: BASE.value(name) for name in SETTINGS
    } | dict(kept)
    assert isinstance(settings.log_level, LogLevel)


@given(st.sampled_from(list(SETTINGS.values())), ANYTHING)
def test_a_value_is_read_or_refused_with_what_would_be_one(one: SettingSpec, given: object) -> None:
    try:
        value = one.read(given)
    except InvalidSettingError as error:
        told = error.detail
    else:
        told = one.range
        assert one.read(one.write(value)) == pytest.approx(value, abs=0.001)
    assert one.range in told


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("engine.detect", " Yes ", True),
        ("engine.detect", "0", False),
        ("engine.cache_ttl", "1h30m", 5400.0),
        ("engine.health_latency_threshold_ms", "2000", 2000),
        ("log.level", "DEBUG", "debug"),
    ],
)
def test_a_text_is_read_as_people_mean_it(name: str, text: str, value: object) -> None:
    assert SETTINGS[name].read(text) == value


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("engine.detect", 1),
        ("engine.max_network_failures", 2.5),
        ("engine.max_network_failures", True),
        ("engine.max_network_failures", "9" * 5000),
        ("engine.cache_ttl", "0"),
        ("engine.cache_ttl", float("nan")),
        ("log.level", "loud"),
    ],
)
def test_what_a_setting_cannot_be_is_refused(name: str, given: object) -> None:
    with pytest.raises(InvalidSettingError, match=name):
        SETTINGS[name].read(given)


def test_a_misspelling_is_told() -> None:
    with pytest.raises(UnknownSettingError, match=r"did you mean 'engine\.cache_ttl'"):
        setting_spec("engine.cachettl")


def test_every_engine_setting_can_be_changed() -> None:
    names = {name.removeprefix("engine.") for name in SETTINGS if name.startswith("engine.")}

    assert names == set(EngineSettings.__slots__)
