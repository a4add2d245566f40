import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.terminal import IN_JSON, visible

ALLOWED = "\t\n"


@pytest.mark.threat("a backend", "control of an operator's terminal")
@given(st.text())
def test_control_characters_are_removed(text: str) -> None:
    assert not [one for one in visible(text) if ord(one) < 32 and one not in ALLOWED]
    assert not [one for one in visible(text) if 0x7F <= ord(one) < 0xA0]


@given(st.text(st.characters(exclude_categories=["Cc"]) | st.sampled_from(ALLOWED)))
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_json_without_control_characters_says_the_same(text: str) -> None:
    line = json.dumps(text, ensure_ascii=False).translate(IN_JSON)

    assert json.loads(line) == text
    assert visible(line) == line
