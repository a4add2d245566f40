"""Settings that can be changed while the proxy runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field

from ai_proxy.api.deps import Principal, TheAuditEvent, TheState
from ai_proxy.api.errors import Problem
from ai_proxy.api.keys import REFUSED, STORE_UNAVAILABLE
from ai_proxy.control.run_settings import Setting, written

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No run-time setting has this name."}
}
SettingName = Annotated[str, Path(description="The setting's name.", examples=["engine.cache_ttl"])]


class Settings(BaseModel):
    """Every setting that can be changed at run time."""

    settings: list[Setting] = Field(description="By section.")


class NewValue(BaseModel):
    """The new value of a setting."""

    model_config = ConfigDict(extra="forbid")

    value: bool | int | float | str = Field(
        description="The value, also as text, such as `5m`.", examples=[3000]
    )


router = APIRouter(prefix="/api/v1/settings", tags=["settings"], responses=STORE_UNAVAILABLE)


@router.get("", summary="List the settings")
async def list_settings(state: TheState) -> Settings:
    """Every setting that can be changed while the proxy runs, and its value."""
    return Settings(settings=state.settings.all())


@router.put("/{name}", summary="Set a setting", responses={**UNKNOWN, **REFUSED})
async def put_settings(
    name: SettingName, new: NewValue, state: TheState, principal: Principal, audit_event: TheAuditEvent
) -> Setting:
    """Set a setting, also for later starts. It overrides the configuration file."""
    setting = await state.settings.put(name, new.value)
    logger.info("setting {} set to {} by {}", name, written(setting), principal)
    audit_event.detail = written(setting)
    return setting


@router.delete("/{name}", summary="Unset a setting", responses=UNKNOWN)
async def drop_settings(name: SettingName, state: TheState, principal: Principal) -> Setting:
    """Return to the value of the configuration file."""
    logger.info("setting {} unset by {}", name, principal)
    return await state.settings.drop(name)
