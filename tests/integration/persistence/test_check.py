"""What `ai-proxy check` says of a store, be it SQLite or PostgreSQL."""

from pathlib import Path

from ai_proxy.core.keys import Grant
from ai_proxy.doctor.finding import Level
from ai_proxy.doctor.installation import Installation, load_installation
from ai_proxy.doctor.store import check_store
from ai_proxy.persistence.store import open_store
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import open_security
from ai_proxy.testing.fakes import FakeClock


def installation(folder: Path, url: str) -> Installation:
    file = folder / "config.yaml"
    file.write_text("store: {url: '${env:URL}'}\nserver: {host: 0.0.0.0}\n")
    return load_installation(file, folder / "data", folder / "run", {"URL": url}, 1_800_000_000.0)


async def test_a_store_is_told_before_it_is_made_and_once_it_is_in_use(tmp_path: Path, url: str) -> None:
    before = await check_store(installation(tmp_path, url))
    data = tmp_path / "data"
    async with (
        open_store(url) as store,
        open_security(store, load_pepper(data), FakeClock()) as security,
    ):
        await security.keys.create(Grant("laptop"))
        during = await check_store(installation(tmp_path, url))

    assert before[0].level is Level.OK
    assert "the first start creates" in before[0].text
    assert [one.level for one in during] == [Level.OK, Level.OK]
    assert during[1].text == "1 of 1 are valid"
