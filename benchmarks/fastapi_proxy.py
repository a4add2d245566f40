"""The proxy most people would write first: FastAPI in front, httpx behind.

It runs in an environment of its own (see `proxies`), under uvicorn.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

DROPPED = {b"host", b"connection", b"keep-alive", b"transfer-encoding"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one pool of connections for all requests."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=os.environ["ENGINE_URL"], limits=limits, timeout=300) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def forward(path: str, request: Request) -> StreamingResponse:
    """Pass a request on and its answer back."""
    client: httpx.AsyncClient = request.app.state.client
    answer = await client.send(
        client.build_request(
            request.method,
            f"/{path.removeprefix('service/bench/')}",
            params=request.query_params,
            headers=[(name, value) for name, value in request.headers.raw if name not in DROPPED],
            content=request.stream(),
        ),
        stream=True,
    )
    headers = {name: value for name, value in answer.headers.items() if name.encode() not in DROPPED}
    return StreamingResponse(
        answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
    )
