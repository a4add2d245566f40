"""The plain text of a key is where it was asked for, and nowhere else."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from tests.unit.api.house import open_house
from tests.unit.cli.conftest import Keeper

PATHS = ("/keys", "/usage", "/policy", "/policy/history", "/audit", "/audit?format=ndjson", "/settings")
COMMANDS = (
    ("api-keys", "list"),
    ("api-keys", "usage"),
    ("audit",),
    ("audit", "--export", "-"),
    ("config", "list"),
    ("security", "policy", "history"),
)


async def make_and_look(data: Path, sockets: Path) -> tuple[list[str], str]:
    """Make two keys over the API, and return them with all that it says of them."""
    async with open_house(data, sockets) as house:
        made = await house.ask("POST", "/keys", {"label": "phone"})
        fresh = await house.ask("POST", f"/keys/{made.body['key']['id']}/rotate")
        plain = [made.body["plain"], fresh.body["plain"]]
        said = [str((await house.ask("DELETE", f"/keys/{plain[0]}")).body), await metrics_of(house.owner)]
        for path in PATHS:
            async with house.owner.get(f"/api/v1{path}") as response:
                said += [await response.text(), str(response.headers)]
        return plain, "\n".join(said)


async def metrics_of(session: aiohttp.ClientSession) -> str:
    async with session.get("/metrics") as response:
        return await response.text()


@pytest.mark.threat("an operator's mistake", "a secret in a log, an error or a shown configuration")
def test_the_plain_text_of_keys_is_kept_and_told_nowhere(keeper: Keeper, tmp_path: Path) -> None:
    plain, said = asyncio.run(make_and_look(keeper.data, tmp_path))
    plain.append(keeper("api-keys", "create", "laptop").out.strip())
    plain.append(keeper("api-keys", "rotate", "laptop").out.strip())
    ran = [keeper(*words, *more) for words in COMMANDS for more in ((), ("--format", "json"))]
    ran += [keeper("api-keys", "revoke", plain[2]), keeper("api-keys", "revoke", plain[2][4:16])]

    said += "\n".join(one.out + one.err for one in ran)
    files = [file for file in keeper.data.rglob("*") if file.is_file()]

    assert len(set(plain)) == 4
    assert {"ai-proxy.db", "pepper"} <= {file.name for file in files}
    for text in plain:
        secret = text.split("_")[2]
        assert secret not in said
        assert [file for file in files if secret.encode() in file.read_bytes()] == []
