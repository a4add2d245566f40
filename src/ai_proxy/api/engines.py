"""Engines that the proxy did not start: their state, and detecting them."""

from typing import Annotated

from fastapi import APIRouter, Query
from loguru import logger
from pydantic import BaseModel, Field

from ai_proxy.api.deps import Engines, Principal
from ai_proxy.api.errors import Problem
from ai_proxy.api.services import Flag
from ai_proxy.core.detection import Detection

router = APIRouter(prefix="/api/v1", tags=["engines"])


class Detections(BaseModel):
    """The result of the detection."""

    engines: list[Detection] = Field(description="Every engine that is looked for, found or not.")


@router.get("/engines", summary="List the engines")
async def list_engines(engines: Engines) -> Detections:
    """State of llama.cpp, vLLM, Ollama and LM Studio on this machine, as cached or detected now."""
    return Detections(engines=list(await engines.detect()))


@router.post(
    "/engines/detect",
    summary="Detect engines",
    responses={404: {"model": Problem, "description": "No engine has this name."}},
)
async def detect_engines(
    engines: Engines,
    principal: Principal,
    *,
    engine: Annotated[
        str | None, Query(description="The only engine to detect.", examples=["ollama"])
    ] = None,
    fresh: Annotated[Flag, Query(description="Ignore the cache.")] = False,
) -> Detections:
    """Detect engines: the program, then the port, then the answer on it."""
    logger.info("detection of {} requested by {}", engine or "all engines", principal)
    return Detections(engines=list(await engines.detect(engine, fresh=fresh)))
