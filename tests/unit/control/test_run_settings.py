from pathlib import Path

from ai_proxy.config.schema import Config
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.security.upkeep import LOOK_EVERY
from ai_proxy.testing.clock import FakeClock
from ai_proxy.vault import open_vault


async def test_a_setting_made_by_another_instance_holds_here_and_is_told(data: Path) -> None:
    clock, env = FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}
    heard = list[RunSettings]()
    async with open_vault(Config(), clock, env) as here, open_vault(Config(), clock, env) as elsewhere:
        stop = here.settings.listen(heard.append)
        await elsewhere.settings.put("engine.max_network_failures", "7")
        while not heard:
            await here.store.settings.all()
            await clock.advance(LOOK_EVERY)
        stop()

        assert here.settings.current.engine.max_network_failures == 7
        assert heard == [here.settings.current]


async def test_what_makes_no_sense_in_the_store_is_as_if_it_were_not_there(data: Path) -> None:
    clock, env = FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}
    async with open_vault(Config(), clock, env) as vault:
        await vault.store.settings.put("engine.cache_ttl", "soon")
        holder = SettingsHolder(vault.store.settings, RunSettings())

        await holder.load()

        assert holder.current == RunSettings()
        assert not holder.get("engine.cache_ttl").made


async def test_a_setting_lasts(data: Path) -> None:
    clock, env = FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}
    async with open_vault(Config(), clock, env) as vault:
        await vault.settings.put("log.level", "debug")

    async with open_vault(Config(), clock, env) as vault:
        assert vault.settings.current.log_level == "debug"


async def test_who_changes_nothing_tells_nobody(data: Path) -> None:
    heard = list[RunSettings]()
    async with open_vault(Config(), FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}) as vault:
        vault.settings.listen(heard.append)

        await vault.settings.put("engine.max_network_failures", 3)
        await vault.settings.drop("engine.max_network_failures")

    assert heard == []
