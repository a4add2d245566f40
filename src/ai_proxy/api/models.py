"""Models, in OpenAI's form for its clients, and with all facts in our own."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from ai_proxy.api.deps import AllowedModels, Plane
from ai_proxy.api.errors import ApiErrorBody
from ai_proxy.control.views import ModelView
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.core.lifecycle import State


class Models(BaseModel):
    """Every model."""

    models: list[ModelView] = Field(description="In the order of their services in the configuration.")


class ModelFacts(BaseModel):
    """Facts about a model beyond OpenAI's API."""

    service: str = Field(description="The service that offers it.")
    engine: str = Field(description="Engine of the service.")
    state: State = Field(description="State of the service; a request starts a stopped one.")
    context_length: int | None = Field(description="In tokens; null when unknown.")
    target: str = Field(description="The engine's name for it, as far as known.")


class OpenAIModel(BaseModel):
    """A model as OpenAI's API describes it."""

    id: str = Field(description="The value for `model`.")
    object: Literal["model"] = Field(default="model", description="Always `model`.")
    created: int = Field(description="When its service was first declared, in seconds since the epoch.")
    owned_by: str = Field(description="Engine of the service.")
    ai_proxy: ModelFacts


class OpenAIModels(BaseModel):
    """Every model, as OpenAI's API lists them."""

    object: Literal["list"] = Field(default="list", description="Always `list`.")
    data: list[OpenAIModel] = Field(description="In the order of their services in the configuration.")


ModelId = Annotated[
    str,
    Path(
        description="A name, an alias, `service/model` or `flm://engine/model`; slashes may be escaped.",
        examples=["llama3"],
    ),
]

router = APIRouter()


@router.get("/v1/models", summary="List the models", tags=["inference"])
async def list_models(plane: Plane, allowed: AllowedModels) -> OpenAIModels:
    """Every model that this key may use, including those of stopped services."""
    return OpenAIModels(data=[openai_model(view) for view in plane.models() if allowed(view)])


@router.get(
    "/v1/models/{model_id:path}",
    summary="Show a model",
    tags=["inference"],
    responses={404: {"model": ApiErrorBody, "description": "No service offers this model."}},
)
async def show_model(model_id: ModelId, plane: Plane, allowed: AllowedModels) -> OpenAIModel:
    """The model that a request with this name would use."""
    view = plane.model(model_id)
    if not allowed(view):
        raise UnknownModelError(model_id)
    return openai_model(view)


@router.get("/api/v1/models", summary="List the models with all facts", tags=["services"])
async def list_model_views(plane: Plane) -> Models:
    """Every model: its service, the state of the service, and the engine's name for it."""
    return Models(models=list(plane.models()))


def openai_model(view: ModelView) -> OpenAIModel:
    """Return a model in OpenAI's form."""
    facts = ModelFacts(
        service=view.service_id,
        engine=view.engine,
        state=view.state,
        context_length=view.context_length,
        target=view.target,
    )
    return OpenAIModel(id=view.name, created=int(view.since), owned_by=view.engine, ai_proxy=facts)
