"""Reads a request to a model, and changes it for the engine that answers it. Pure."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Raw

from ai_proxy.core.abilities import Modality, Rule, Treatment
from ai_proxy.core.errors import InvalidRequestError, UnsupportedModalitiesError, UnsupportedParameterError
from ai_proxy.core.routing import ModelRoute
from ai_proxy.gateway.routing.table import PlainReader

type Fields = dict[str, Raw]
"""The members of a JSON object, each as it was sent: what is not changed is passed on byte for byte."""

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_OPTIONS = msgspec.json.Decoder(dict[str, Raw] | None)
_TEXT = msgspec.json.Decoder(str)
_NUMBER = msgspec.json.Decoder(int | float)
_ENCODER = msgspec.json.Encoder()
_TRUE, _FALSE, _NULL = Raw(b"true"), Raw(b"false"), Raw(b"null")

_LIKE_MODEL = frozenset(map("".join, itertools.product(*zip("model", "MODEL", strict=True)))) - {"model"}
"""Names that engines written in Go take for `model`: their JSON decoder ignores case."""
_NEVER = Annotated[str, Meta(min_length=1, max_length=0)]
"""The type of a member that must be absent: no string satisfies it."""

LARGE = 256 * 1024
"""Bytes above which a body is read in a thread, since other requests would have to wait for it."""
MAX_MEMBERS = 1000
"""Most members of a large body that is decoded: each takes far more memory than it has bytes."""
MAX_NAMES = 50_000
"""Names in a body, at any depth, below which its members need not be counted."""
MAX_TOKENS = 1_000_000
"""Strings and brackets after which the search for member names gives up; most brackets of a large body."""

_MODEL_NAME = b'"%b"' % b"".join(
    rb"(?:[%c%c]|\\u00(?i:%02x|%02x))" % (small, large, small, large)
    for small, large in zip(b"model", b"MODEL", strict=True)
)
"""The name `model`, with or without JSON escapes, in any case."""
_IS_MODEL = re.compile(_MODEL_NAME)
_LONGEST_MODEL = len(b'"\\u006d\\u006f\\u0064\\u0065\\u006c"')
_IS_TEXT = re.compile(rb"\s*+:\s*+[^\s{]")
"""What follows such a name unless its value is an object, which describes a parameter of a tool."""
_SLICE = 256 * 1024
"""Bytes searched in one call: no other thread runs during it."""
_NAME_ENDS = (b'":', b" :", b"\t:", b"\n:", b"\r:")
"""How a name in an object ends, and some texts too."""
_TOKEN = re.compile(
    rb'([{\[])|([}\]])|("[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:)|"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL
)
"""The tokens that determine depth in JSON: opening and closing brackets, names with their colon, strings."""
_OPENS, _CLOSES, _NAMES = 1, 2, 3

PARTS: Mapping[Modality, re.Pattern[bytes]] = {
    Modality.IMAGE: re.compile(rb'"type"\s*+:\s*+"(?:image_url|input_image|image)"'),
    Modality.AUDIO: re.compile(rb'"type"\s*+:\s*+"(?:input_audio|audio_url)"'),
}
"""The type of a content part as written in a prompt: within a string, its quotes would be escaped."""

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What reading a body may raise."""


def plain_reader(engines: Iterable[Mapping[str, Rule]]) -> PlainReader:
    """Return what reads a body in one go, since most need no change: `read` and `fit` are for the others.

    Args:
        engines: The rules for parameters of each engine that may be meant; all are applied.

    >>> plain = plain_reader([{"temperature": Rule(Treatment.CLAMP, 0, 2), "seed": Rule(Treatment.DROP)}])
    >>> plain(b'{"model": "llama3", "stream": true, "messages": [], "temperature": 0.5}')
    ('llama3', True)
    >>> plain(b'{"model": "llama3", "seed": 1}')
    Traceback (most recent call last):
    msgspec.ValidationError: Expected `null`, got `int` - at `$.seed`
    """
    rules = {
        (name, rule.treatment, rule.low, rule.high) for engine in engines for name, rule in engine.items()
    }
    return _plain_reader(frozenset(rules))


class _Name:
    """The type of `model`: one of its own, so that the decoder shows each one that there is."""


class _Plain(msgspec.Struct, frozen=True, gc=False):
    """A request that needs no change."""

    model: _Name
    stream: bool | None = None


_NAME = _Name()


@cache
def _plain_reader(rules: frozenset[tuple[str, Treatment, float, float]]) -> PlainReader:
    """Make the reader, once for the same rules: that takes as long as many requests do."""
    allowed: dict[str, object] = dict.fromkeys(_LIKE_MODEL, _NEVER)
    for name in {name for name, *_ in rules}:
        treatments, lows, highs = zip(*(rule[1:] for rule in rules if rule[0] == name), strict=True)
        within = Annotated[float, Meta(ge=max(lows), le=min(highs))] | None
        allowed[name] = within if {*treatments} == {Treatment.CLAMP} else None
    fields = {f"field_{number}": name for number, name in enumerate(allowed)}
    shape = msgspec.defstruct(
        "Plain",
        [(field, allowed[name], None) for field, name in fields.items()],
        bases=(_Plain,),
        rename=fields,
        frozen=True,
        gc=False,
    )
    names: list[str] = []

    def see(_: type, name: object) -> object:
        if names or not isinstance(name, str):
            raise TypeError("one string was expected")  # of two models, engines take the first or the last
        names.append(name)
        return _NAME

    decode = msgspec.json.Decoder(cast("type[_Plain]", shape), dec_hook=see).decode

    def read_plain(body: bytes | bytearray) -> tuple[str, bool]:
        names.clear()
        streaming = decode(body).stream is True
        return names[0], streaming

    return read_plain


class Prompt(msgspec.Struct):
    """A request to a model, as far as the proxy has to understand it.

    Attributes:
        model: As the client named it.
        streamed: Whether it asks for a stream.
        fields: All there is.
    """

    model: str
    streamed: bool
    fields: Fields


def read(body: bytes | bytearray, *, streams_by_default: bool = False) -> Prompt:
    """Read a JSON body.

    Args:
        body: As sent.
        streams_by_default: Whether a request without `stream` asks for one.

    Raises:
        InvalidRequestError: It is no JSON object, or names no model.

    >>> read(b'{"model": "llama3", "stream": true, "messages": []}').model
    'llama3'
    """
    try:
        fields = _FIELDS.decode(body)
    except UNREADABLE as error:
        raise InvalidRequestError(f"the body must be a JSON object: {_in_words(error, body)}") from None
    named = fields.get("model")
    if named is None:
        raise InvalidRequestError("the request must name a model; GET /v1/models lists the models", "model")
    try:
        model = _TEXT.decode(named)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequestError("model must be a string", "model") from None
    if not _LIKE_MODEL.isdisjoint(fields):
        raise _ambiguous_model()
    asked = fields.get("stream")
    if asked is None or asked == _NULL:
        return Prompt(model, streams_by_default, fields)
    if asked != _TRUE and asked != _FALSE:
        raise InvalidRequestError("stream must be true or false", "stream")
    return Prompt(model, asked == _TRUE, fields)


def check_one_model(body: bytes | bytearray) -> None:
    r"""Check that a body names one model: of several, some engines take the first, others the last.

    Raises:
        InvalidRequestError: It names more than one.

    >>> check_one_model(b'{"model": "a", "tools": [{"model": "x"}]}')
    >>> check_one_model(b'{"model": "a", "mod\\u0065l": "b"}')
    Traceback (most recent call last):
    ai_proxy.core.errors.InvalidRequestError: model must be given exactly once, in lower case
    """
    if body.count(b'"model"') == 1 and body.find(b"\\u00") < 0:
        return
    if not _has_second(_named_models(body)):
        return
    if _has_second(name for name in member_names(body) if _IS_MODEL.match(name)):
        raise _ambiguous_model()


def _ambiguous_model() -> InvalidRequestError:
    return InvalidRequestError("model must be given exactly once, in lower case", "model")


def _has_second(found: Iterator[object]) -> bool:
    return next(itertools.islice(found, 1, None), None) is not None


def _named_models(body: bytes | bytearray) -> Iterator[re.Match[bytes]]:
    """Yield the members `model` at any depth, but for those that are objects."""
    for start in range(0, len(body), _SLICE):
        for found in _IS_MODEL.finditer(body, start, start + _SLICE + _LONGEST_MODEL - 1):
            if found.start() < start + _SLICE and _IS_TEXT.match(body, found.end()):
                yield found


def check_members(body: bytes | bytearray) -> None:
    """Check that decoding a body takes neither many times its size in memory nor long.

    Raises:
        InvalidRequestError: It has too many members, or too many lists and objects.
    """
    if body.count(b"[") + body.count(b"{") > MAX_TOKENS:
        raise InvalidRequestError(
            f"a body of more than {LARGE} bytes must not have more than {MAX_TOKENS} brackets"
        )
    ends = (body.count(end, at, at + _SLICE + 1) for at in range(0, len(body), _SLICE) for end in _NAME_ENDS)
    if all(count < MAX_NAMES for count in itertools.accumulate(ends)):
        return
    if next(itertools.islice(member_names(body), MAX_MEMBERS, None), None) is not None:
        raise InvalidRequestError(
            f"a body of more than {LARGE} bytes must not have more than {MAX_MEMBERS} members"
        )


def member_names(body: bytes | bytearray) -> Iterator[bytes]:
    """Yield the names of a JSON object's members as written, without decoding their values.

    Raises:
        InvalidRequestError: The object does not end, or takes too long to search.

    >>> list(member_names(b'{"a": {"b": 1}, "c" : ["d"], "e": "f: g"}'))
    [b'"a":', b'"c" :', b'"e":']
    """
    depth = 0
    for token in itertools.islice(_TOKEN.finditer(body), MAX_TOKENS):
        kind = token.lastindex
        if kind == _OPENS:
            depth += 1
        elif kind == _CLOSES:
            depth -= 1
            if not depth:
                return
        elif kind == _NAMES and depth == 1:
            yield token[0]
    if depth:
        raise InvalidRequestError(
            f"the body must be a complete JSON object with at most {MAX_TOKENS} strings and brackets"
        )


def _in_words(error: Exception, body: bytes | bytearray) -> str:
    if not body:
        return "it is empty"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def ask_for_usage(prompt: Prompt) -> bool:
    """Have the engine report the usage of a stream; False where the client asks for it itself.

    >>> prompt = read(b'{"model": "llama3", "stream": true, "stream_options": {"include_usage": false}}')
    >>> ask_for_usage(prompt), encode(prompt)
    (True, b'{"model":"llama3","stream":true,"stream_options":{"include_usage":true}}')
    >>> ask_for_usage(prompt)
    False
    """
    try:
        options = _OPTIONS.decode(prompt.fields.get("stream_options", _NULL)) or {}
    except UNREADABLE:
        return False  # the engine will say what is wrong with it
    if options.get("include_usage") == _TRUE:
        return False
    prompt.fields["stream_options"] = _raw(options | {"include_usage": True})
    return True


def encode(prompt: Prompt) -> bytes:
    """Return a prompt as JSON."""
    return _ENCODER.encode(prompt.fields)


def fit(prompt: Prompt, route: ModelRoute) -> tuple[bytes | None, tuple[str, ...]]:
    """Fit a request to the engine that is to answer it.

    Returns:
        The body to send, None for the one that came; and warnings for the client.

    Raises:
        UnsupportedParameterError: It has a parameter that this engine does not know and must not ignore.
    """
    service, rules = route.offer.service, route.offer.abilities.parameters
    fields = prompt.fields
    changes: Fields = {}
    if route.target != prompt.model:
        changes["model"] = _raw(route.target)
    for name, value in service.default_params.items():
        if _is_absent(fields.get(name)):
            changes[name] = _raw(value)
    for name, value in service.set_params.items():
        changes[name] = _raw(value)
    dropped = {name for name in service.drop_params if name in fields or name in changes}
    warnings: list[str] = []
    for name in rules.keys() & (fields.keys() | changes.keys()) - dropped:
        value = changes.get(name, fields.get(name))
        if value is not None and not _is_absent(value):
            _treat(name, value, rules[name], changes, dropped, warnings)
    if not changes and not dropped:
        return None, ()
    kept = {name: value for name, value in (fields | changes).items() if name not in dropped}
    return _ENCODER.encode(kept), tuple(sorted(warnings))


def _treat(
    name: str, value: Raw, rule: Rule, changes: Fields, dropped: set[str], warnings: list[str]
) -> None:
    """Apply the rule for one parameter."""
    why = f" ({rule.why})" if rule.why else ""
    if rule.treatment is Treatment.REJECT:
        raise UnsupportedParameterError(f"{name} is not supported here{why}; leave it out", name)
    if rule.treatment is Treatment.DROP:
        dropped.add(name)
        warnings.append(f"{name} was left out{why}")
    elif (clamped := _clamp(value, rule)) is not None:
        changes[name] = _raw(clamped)
        warnings.append(f"{name} was set to {clamped:g}{why}")


def _clamp(value: Raw, rule: Rule) -> float | None:
    """Return the nearest value that a rule allows; None when the value is allowed, or is no number."""
    try:
        number = _NUMBER.decode(value)
    except msgspec.MsgspecError:
        return None
    nearest = min(max(number, rule.low), rule.high)
    if nearest == number:
        return None
    return int(nearest) if float(nearest).is_integer() else nearest


def check_modalities(body: bytes | bytearray, prompt: Prompt, route: ModelRoute) -> None:
    """Check that a prompt has no images or audio that its model cannot read.

    Raises:
        UnsupportedModalitiesError: It has images or audio, for a model without.
    """
    missing = PARTS.keys() - route.modalities
    if not missing or not may_have_parts(body):
        return
    for modality in sorted(missing):
        if any(PARTS[modality].search(prompt.fields.get(name, b"")) for name in ("messages", "input")):
            raise UnsupportedModalitiesError(
                f"{prompt.model!r} takes no {modality}; ask a model that does (GET /v1/models lists them)",
                "messages",
            )


def may_have_parts(body: bytes | bytearray) -> bool:
    """Tell whether a message of a prompt can be in parts: they are a list within the list of messages.

    >>> may_have_parts(b'{"messages": [{"content": "hi"}]}')
    False
    >>> may_have_parts(b'{"messages": [{"content": [{"type": "text", "text": "hi"}]}]}')
    True
    """
    return body.find(b"[", body.find(b"[") + 1) >= 0


def _is_absent(value: Raw | None) -> bool:
    return value is None or value == _NULL


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))
