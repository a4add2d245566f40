"""Whatever an engine answers about itself, it is examined without an error, in bounded memory."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import aiohttp.abc
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy.core.ports import Model, Probe
from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.engines.answers import Answer
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.detect.classify import Circumstances, ProbeResult, classify, identify
from ai_proxy.engines.http import HttpEngine, create_engines
from ai_proxy.engines.listing import MAX_CONTEXT, MAX_READ, read_models

NAMES = st.sampled_from(["id", "key", "name", "type", "owned_by", "version", "data", "models", "ai_proxy"])
DETAILS = st.sampled_from(
    ["context_length", "max_model_len", "n_ctx", "input_modalities", "vision", "message"]
)
GROUPS = st.sampled_from(["architecture", "capabilities", "details", "error", "loaded_instances", "meta"])
KEYS = NAMES | DETAILS | GROUPS
TEXT = st.text(st.characters(codec=None), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.integers(2**63, 2**70)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | TEXT, inner, max_size=6),
    max_leaves=25,
)
LISTS = st.builds(lambda key, entries: {key: entries}, st.sampled_from(["data", "models"]), st.lists(JSON))
BODIES = (LISTS | JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)
STATUSES = st.sampled_from([200, 200, 200, 204, 401, 404, 429, 500, 503])
ANSWERS = st.builds(Answer, STATUSES, BODIES)


def can_be_sent_on(text: str) -> bool:
    """Tell whether a text can be shown, logged and put into JSON."""
    return text.isprintable() and bool(text.encode())


def check_models(models: Sequence[Model]) -> None:
    names = [model.id for model in models]
    assert len(names) == len(set(names)) <= MAX_READ
    assert all(name and can_be_sent_on(name) for name in names)
    lengths = [model.context_length for model in models]
    assert all(length is None or (type(length) is int and 0 < length <= MAX_CONTEXT) for length in lengths)


@pytest.mark.parametrize("name", [name for name, engine in BUILT_IN.items() if engine.profile.listings])
@given(answers=st.lists(ANSWERS, min_size=3, max_size=3))
def test_only_models_that_can_be_offered_are_read_of_any_answer(name: str, answers: list[Answer]) -> None:
    listings = BUILT_IN[name].profile.listings
    told = {listing.path: answer for listing, answer in zip(listings, answers, strict=False)}

    check_models(read_models(listings, told) or [])


@given(answers=st.dictionaries(st.sampled_from(["/", "/health", "/v1/models", "/api/tags"]), ANSWERS))
def test_any_answer_is_classified(answers: dict[str, Answer]) -> None:
    answering = identify(answers, BUILT_IN.values())
    for engine in BUILT_IN.values():
        found = classify(engine, ProbeResult(answers), answering, Circumstances(installed=True))
        assert can_be_sent_on(found.detail)


@asynccontextmanager
async def backend(answer: Answer) -> AsyncIterator[Upstream]:
    """Run a server that gives the same answer to everything."""

    async def reply(_: web.BaseRequest) -> web.Response:
        return web.Response(status=answer.status, body=answer.body)

    runner = web.ServerRunner(web.Server(reply))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield Upstream(host, port)
    finally:
        await runner.cleanup()


async def ask(answer: Answer) -> list[tuple[Probe, Sequence[Model]]]:
    async with backend(answer) as upstream, aiohttp.ClientSession(auto_decompress=False) as session:
        service = Service("s", "generic", "generic", ExternalLaunch((upstream,)), "1")
        engines = create_engines(BUILT_IN.values(), session).values()
        return [(await one.probe(service, upstream), await one.models(service, upstream)) for one in engines]


@settings(max_examples=50, deadline=None)
@given(answer=ANSWERS)
def test_a_probe_never_raises_whatever_the_engine_answers(answer: Answer) -> None:
    for probe, models in asyncio.run(ask(answer)):
        assert can_be_sent_on(probe.detail)
        check_models(models)


class BrokenResolver(aiohttp.abc.AbstractResolver):
    """Raises what nobody foresaw."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        raise AssertionError("a state that cannot be")

    async def close(self) -> None:
        pass


async def test_an_error_that_nobody_foresaw_is_an_answer_as_well() -> None:
    upstream = Upstream("gpu-box", 1)
    service = Service("s", "generic", "generic", ExternalLaunch((upstream,)), "1")
    connector = aiohttp.TCPConnector(resolver=BrokenResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        engine = HttpEngine(BUILT_IN["llamacpp"].profile, session)
        probe = await engine.probe(service, upstream)
        models = await engine.models(service, upstream)

    assert probe == Probe(ready=False, detail="AssertionError: a state that cannot be")
    assert list(models) == []
