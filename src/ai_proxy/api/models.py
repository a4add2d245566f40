"""Models: which there are, in OpenAI's form for its clients, and with all facts in our own."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from ai_proxy.api.deps import AllowedModels, Plane
from ai_proxy.api.errors import ApiErrorBody
from ai_proxy.control.views import ModelView
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.core.lifecycle import State


class Models(BaseModel):
    """Every model that can be asked for."""

    models: list[ModelView] = Field(description="In the order of their services in the configuration.")


class ModelFacts(BaseModel):
    """What the proxy knows of a model beyond what OpenAI's API tells."""

    service: str = Field(description="The service that answers.")
    engine: str = Field(description="The software that answers.")
    state: State = Field(description="Of the service; one that is stopped starts with the first request.")
    context_length: int | None = Field(description="In tokens; null when the engine has not said.")
    target: str = Field(description="What the engine calls it, as far as is known.")


class OpenAIModel(BaseModel):
    """A model as OpenAI's API describes it."""

    id: str = Field(description="What to send as `model`.")
    object: Literal["model"] = Field(default="model", description="Always `model`.")
    created: int = Field(description="When its service was first known, in seconds since the epoch.")
    owned_by: str = Field(description="The engine that answers.")
    ai_proxy: ModelFacts


class OpenAIModels(BaseModel):
    """Every model that can be asked for, as OpenAI's API lists them."""

    object: Literal["list"] = Field(default="list", description="Always `list`.")
    data: list[OpenAIModel] = Field(description="In the order of their services in the configuration.")


ModelId = Annotated[
    str,
    Path(
        description="As listed, an alias, `service/model` or `flm://engine/model`; slashes may be escaped.",
        examples=["llama3"],
    ),
]

router = APIRouter()


@router.get("/v1/models", summary="List the models", tags=["inference"])
async def list_models(plane: Plane, allowed: AllowedModels) -> OpenAIModels:
    """Every model that may be asked for with this key, those of stopped services included."""
    return OpenAIModels(data=[openai_model(view) for view in plane.models() if allowed(view)])


@router.get(
    "/v1/models/{model_id:path}",
    summary="Show a model",
    tags=["inference"],
    responses={404: {"model": ApiErrorBody, "description": "No service answers to that name of a model."}},
)
async def show_model(model_id: ModelId, plane: Plane, allowed: AllowedModels) -> OpenAIModel:
    """One model, found as a request for it would be."""
    view = plane.model(model_id)
    if not allowed(view):
        raise UnknownModelError(model_id)
    return openai_model(view)


@router.get("/api/v1/models", summary="List the models with all facts", tags=["services"])
async def list_model_views(plane: Plane) -> Models:
    """Every model that can be asked for: who answers, how that service stands, what the engine is asked."""
    return Models(models=list(plane.models()))


def openai_model(view: ModelView) -> OpenAIModel:
    """Return what OpenAI's API tells of a model."""
    facts = ModelFacts(
        service=view.service_id,
        engine=view.engine,
        state=view.state,
        context_length=view.context_length,
        target=view.target,
    )
    return OpenAIModel(id=view.name, created=int(view.since), owned_by=view.engine, ai_proxy=facts)
