"""Engines that run by themselves: how they stand, and looking for them."""

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
    """How the engines stand that may run by themselves."""

    engines: list[Detection] = Field(description="Those looked for, whether they are there or not.")


@router.get("/engines", summary="List the engines")
async def list_engines(engines: Engines) -> Detections:
    """What is known of llama.cpp, vLLM, Ollama and LM Studio here; looked up when it is too old."""
    return Detections(engines=list(await engines.detect()))


@router.post(
    "/engines/detect",
    summary="Look for engines",
    responses={404: {"model": Problem, "description": "No engine of that name is looked for."}},
)
async def detect_engines(
    engines: Engines,
    principal: Principal,
    *,
    engine: Annotated[str | None, Query(description="The only one to look for.", examples=["ollama"])] = None,
    fresh: Annotated[Flag, Query(description="Ask again what is known already.")] = False,
) -> Detections:
    """Look for engines and say how they stand: the program, then the port, then what answers there."""
    logger.info("detection of {} asked for by {}", engine or "all engines", principal)
    return Detections(engines=list(await engines.detect(engine, fresh=fresh)))
