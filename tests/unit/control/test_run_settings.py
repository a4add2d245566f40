from pathlib import Path

from ai_proxy.config.schema import Config
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.instances.state import open_state
from ai_proxy.persistence.sqlite import LOOK_EVERY
from ai_proxy.testing.fakes import FakeClock


async def test_a_setting_made_by_another_instance_holds_here_and_is_told(data: Path) -> None:
    clock, env = FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}
    heard = list[RunSettings]()
    async with open_state(Config(), clock, env) as here, open_state(Config(), clock, env) as elsewhere:
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
    async with open_state(Config(), clock, env) as state:
        await state.store.settings.put("engine.cache_ttl", "soon")
        holder = SettingsHolder(state.store.settings, RunSettings())

        await holder.load()

        assert holder.current == RunSettings()
        assert not holder.get("engine.cache_ttl").made


async def test_a_setting_lasts(data: Path) -> None:
    clock, env = FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}
    async with open_state(Config(), clock, env) as state:
        await state.settings.put("log.level", "debug")

    async with open_state(Config(), clock, env) as state:
        assert state.settings.current.log_level == "debug"


async def test_who_changes_nothing_tells_nobody(data: Path) -> None:
    heard = list[RunSettings]()
    async with open_state(Config(), FakeClock(), {"AI_PROXY_DATA_DIR": str(data)}) as state:
        state.settings.listen(heard.append)

        await state.settings.put("engine.max_network_failures", 3)
        await state.settings.drop("engine.max_network_failures")

    assert heard == []
