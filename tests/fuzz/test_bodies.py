"""Whatever JSON, form or YAML comes: what is read of it is what others read, or it is refused in words."""

import json
import re
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.conftest import examples
from tests.fuzz.test_requests import mutate
from tests.unit.dialects.values import values

from ai_proxy.config.load import load_config
from ai_proxy.config.problems import ConfigError, Problem
from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.gateway.http.multipart import ModelField, boundary_of
from ai_proxy.gateway.inference import prompt

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.yaml").read_bytes()
FORM = b'multipart/form-data; boundary="a+b"'
KINDS = st.sampled_from(["insert", "replace", "delete"])


def changes(tokens: tuple[bytes, ...], most: int = 4) -> st.SearchStrategy[list[tuple[str, int, bytes]]]:
    """Draw what `mutate` does to a body."""
    change = st.tuples(KINDS, st.integers(0, 100_000), st.sampled_from(tokens))
    return st.lists(change, max_size=most)


# JSON.

NAMES = st.sampled_from(
    ['"model"', '"Model"', '"MODEL"', '"mod\\u0065l"', '"\\u004dodel"', '"model "', '"stream"', '"messages"']
)
MEMBERS = st.lists(st.tuples(NAMES, st.just('"m"') | values.map(json.dumps)), max_size=6)
JSON_TOKENS = (
    *(
        b'"model":"n",',
        b',"model":"n"',
        b'"Model":"n",',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"null",
    ),
    *(b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"1e999", b"-0", b"NaN", b"//", b" ", b"\n"),
)


@pytest.mark.threat("a limited key", "another model's answers")
@settings(max_examples=examples(1000), deadline=None)
@given(MEMBERS, changes(JSON_TOKENS))
def test_the_model_that_is_read_is_the_only_one_that_any_reader_of_json_finds(
    members: list[tuple[str, str]], changed: list[tuple[str, int, bytes]]
) -> None:
    body = mutate("{{{}}}".format(",".join(f"{name}: {value}" for name, value in members)).encode(), changed)

    try:
        prompt.check_one_model(body)
        read = prompt.read(body)
    except InvalidRequestError:
        return

    found: list[tuple[str, object]] = json.loads(body.decode(), object_pairs_hook=list)
    named = [value for name, value in found if name.lower() == "model"]
    assert [name for name in named if isinstance(name, str)] == [read.model]


# Forms.

FORM_TOKENS = (
    *(
        b"--a+b\r\n",
        b"\r\n--a+b\r\n",
        b"\n--a+b\n",
        b"\r\n--a+b--\r\n",
        b"--a+b--",
        b"--a+b \t\r\n",
        b"\r\n\r\n",
    ),
    *(
        b'Content-Disposition: form-data; name="model"\r\n\r\nn',
        b"content-disposition:form-data;name=Model\r\n\r\nn",
    ),
    *(
        b'; name="model"',
        b"; name*=utf-8''model",
        b'; filename="f"',
        b'name="mod\\el"',
        b"\r\n ",
        b"\r",
        b"\n",
    ),
    *(b"\x00", b"\xff", b'"', b";", b":", b"model", b"x" * 3000),
)
PART = b'--a+b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = b'--a+b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\x00\xff\r\n'
PARTS = st.lists(st.sampled_from([PART % (b"model", b"m"), PART % (b"language", b"en"), FILE]), max_size=5)


def models_by_email(body: bytes) -> list[bytes]:
    """Return every `model` that the reader of the standard library finds: a lenient one, as engines use.

    What follows the end of a form in the same line makes it part of the content to this reader. No model is
    called so, and nothing else can be said by it. A CR alone ends a line to no other reader.
    """
    form: Message = BytesParser().parsebytes(b"Content-Type: %b\r\n\r\n%b" % (FORM, body))
    return [
        re.split(rb"(?:^|\r\n)--a\+b--", bytes(part.get_payload(decode=True) or b""))[0]
        for part in form.walk()
        if str(part.get_param("name", header="content-disposition")).lower() == "model"
    ]


@pytest.mark.threat("a limited key", "another model's answers")
@settings(max_examples=examples(1000), deadline=None)
@given(PARTS, changes(FORM_TOKENS), st.integers(1, 60))
def test_no_lenient_reader_finds_another_model_in_an_upload(
    parts: list[bytes], changed: list[tuple[str, int, bytes]], size: int
) -> None:
    body = mutate(b"".join(parts) + b"--a+b--\r\n", changed)
    field = ModelField(boundary_of(FORM))

    try:
        for start in range(0, len(body), size):
            field.feed(body[start : start + size])
        field.end()
    except InvalidRequestError:
        return
    if re.search(rb"\r(?!\n)", body):
        return

    assert field.model is not None
    assert set(models_by_email(body)) <= {field.model.encode()}


# YAML.

YAML_TOKENS = (
    *(
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!python/object:os.system ",
        b"!!binary ",
        b"!x ",
        b"? ",
        b"- ",
        b": ",
        b"|\n",
    ),
    *(
        b">-\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\t",
        b"'",
        b'"',
        b"#",
        b"%YAML 1.1\n",
        b"---\n",
        b"...\n",
        b"\x00",
        b"\xff",
    ),
    *(
        b"${env:HOME}",
        b"${file:/dev/null}",
        b"${env:",
        b"~",
        b"1e999",
        b"0x7f",
        b"services:\n",
        b"  ",
        b"\xef\xbb\xbf",
    ),
)


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes(YAML_TOKENS, most=6))
def test_a_configuration_loads_or_every_problem_is_told_with_what_to_do(
    tmp_path: Path, changed: list[tuple[str, int, bytes]]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(mutate(EXAMPLE, changed))

    problems = problems_of(path)

    assert all(problem.message and problem.hint for problem in problems)
    assert "sesame-open" not in str(problems)


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        load_config(path, {"HOME": "/root", "CLOUD_KEY": "sesame-open"})
    except ConfigError as error:
        return tuple(error.problems)
    return ()
