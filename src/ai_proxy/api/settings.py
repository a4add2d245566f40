"""Settings that are changed while the proxy runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field

from ai_proxy.api.deps import Kept, Principal, TheAuditEvent
from ai_proxy.api.errors import Problem
from ai_proxy.api.keys import NOT_KEPT, REFUSED
from ai_proxy.control.run_settings import Setting, written

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No setting that can be changed at run time is called that."}
}
SettingName = Annotated[str, Path(description="The setting's name.", examples=["engine.cache_ttl"])]


class Settings(BaseModel):
    """Every setting that can be changed at run time."""

    settings: list[Setting] = Field(description="By section.")


class NewValue(BaseModel):
    """What a setting is to be."""

    model_config = ConfigDict(extra="forbid")

    value: bool | int | float | str = Field(
        description="The value, or a text that says it, such as `5m`.", examples=[3000]
    )


router = APIRouter(prefix="/api/v1/settings", tags=["settings"], responses=NOT_KEPT)


@router.get("", summary="List the settings")
async def list_settings(kept: Kept) -> Settings:
    """What can be changed while the proxy runs, apart from the configuration file, and what holds."""
    return Settings(settings=kept.settings.all())


@router.put("/{name}", summary="Make a setting", responses={**UNKNOWN, **REFUSED})
async def put_settings(
    name: SettingName, new: NewValue, kept: Kept, principal: Principal, audit_event: TheAuditEvent
) -> Setting:
    """Have a setting hold from now on, also after a restart; it comes before the configuration file."""
    setting = await kept.settings.put(name, new.value)
    logger.info("setting {} made {} by {}", name, written(setting), principal)
    audit_event.detail = written(setting)
    return setting


@router.delete("/{name}", summary="Take a setting back", responses=UNKNOWN)
async def drop_settings(name: SettingName, kept: Kept, principal: Principal) -> Setting:
    """Have hold what the configuration file says."""
    logger.info("setting {} taken back by {}", name, principal)
    return await kept.settings.drop(name)
