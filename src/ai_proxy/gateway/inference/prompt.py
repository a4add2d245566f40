"""What a request to a model says, and how it is changed for the engine that is to answer it. Pure."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Raw

from ai_proxy.core.abilities import Modality, Rule, Treatment
from ai_proxy.core.errors import InvalidRequestError, UnsupportedModalitiesError, UnsupportedParameterError
from ai_proxy.core.routing import ModelRoute

type Fields = dict[str, Raw]
"""The members of a JSON object, each as it was sent: what is not changed is passed on byte for byte."""

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_TEXT = msgspec.json.Decoder(str)
_NUMBER = msgspec.json.Decoder(int | float)
_ENCODER = msgspec.json.Encoder()
_TRUE, _FALSE, _NULL = Raw(b"true"), Raw(b"false"), Raw(b"null")

_LIKE_MODEL = frozenset(map("".join, itertools.product(*zip("model", "MODEL", strict=True)))) - {"model"}
"""Names that engines written in Go take for `model`: their JSON does not tell capitals from small letters."""
_NEVER = Annotated[str, Meta(min_length=1, max_length=0)]
"""The type of what must not be there."""

PARTS: Mapping[Modality, tuple[bytes, ...]] = {
    Modality.IMAGE: (b'"image_url"', b'"input_image"', b'"image"'),
    Modality.AUDIO: (b'"input_audio"', b'"audio_url"'),
}
"""Types of content parts, as they stand in a prompt that holds such a part."""


UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What reading a body may raise."""


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A request that may be passed on as it is: all that has to be known of it.

    Attributes:
        model: As the client named it.
        stream: Whether it asks for a stream; None where it does not say so.
    """

    model: str
    stream: bool | None = None


type PlainReader = Callable[[bytes | bytearray], Plain]
"""Reads a request that no rule for parameters applies to; raises one of UNREADABLE at any other."""


def plain_reader(engines: Iterable[Mapping[str, Rule]]) -> PlainReader:
    """Return what reads a body in one go, since most need no change: `read` and `fit` are for the others.

    Args:
        engines: The rules for parameters of each engine that may be meant; all are applied.

    >>> plain = plain_reader([{"temperature": Rule(Treatment.CLAMP, 0, 2), "seed": Rule(Treatment.DROP)}])
    >>> plain(b'{"model": "llama3", "stream": true, "messages": [], "temperature": 0.5}').model
    'llama3'
    >>> plain(b'{"model": "llama3", "seed": 1}')
    Traceback (most recent call last):
    msgspec.ValidationError: Expected `null`, got `int` - at `$.seed`
    """
    rules = {
        (name, rule.treatment, rule.low, rule.high) for engine in engines for name, rule in engine.items()
    }
    return _plain_reader(frozenset(rules))


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
        bases=(Plain,),
        rename=fields,
        frozen=True,
        gc=False,
    )
    return msgspec.json.Decoder(cast("type[Plain]", shape)).decode


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
        raise InvalidRequestError(
            "the request must say which model it is for; GET /v1/models lists them", "model"
        )
    try:
        model = _TEXT.decode(named)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequestError("model must be a string", "model") from None
    if not _LIKE_MODEL.isdisjoint(fields):
        raise InvalidRequestError("model must be said once, in small letters", "model")
    asked = fields.get("stream")
    if asked is None or asked == _NULL:
        return Prompt(model, streams_by_default, fields)
    if asked != _TRUE and asked != _FALSE:
        raise InvalidRequestError("stream must be true or false", "stream")
    return Prompt(model, asked == _TRUE, fields)


def _in_words(error: Exception, body: bytes | bytearray) -> str:
    if not body:
        return "it is empty"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


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
    """See that a prompt holds nothing that its model cannot take.

    Raises:
        UnsupportedModalitiesError: It has images or audio, for a model without.
    """
    taken = route.modalities
    if len(taken) == len(PARTS) or not may_have_parts(body) or b'"type"' not in body:
        return
    for modality, marks in PARTS.items():
        if modality in taken or not any(mark in body for mark in marks):
            continue
        if modality in set(_modalities(prompt.fields)):
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


def _modalities(fields: Fields) -> Iterator[Modality]:
    """Yield what the content parts of a prompt are, beside text."""
    kinds = {mark[1:-1].decode(): modality for modality, marks in PARTS.items() for mark in marks}
    for name in ("messages", "input"):
        try:
            messages: object = msgspec.json.decode(fields.get(name, Raw(b"null")))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # the engine will say what is wrong with it
        for part in _parts(messages):
            match part:
                case {"type": str(kind)} if kind in kinds:
                    yield kinds[kind]


def _parts(messages: object) -> Iterator[object]:
    for message in messages if isinstance(messages, list) else ():
        match message:
            case {"content": list(parts)}:
                yield from parts
            case _:
                continue


def _is_absent(value: Raw | None) -> bool:
    return value is None or value == _NULL


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))
