import re
from pathlib import Path

import pytest

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load_config
from ai_proxy.core import errors
from ai_proxy.core.abilities import Abilities
from ai_proxy.core.routing import ModelTable, Offer
from ai_proxy.gateway.exchange import CREDENTIALS
from ai_proxy.gateway.routing.endpoints import OLLAMA

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "models.md").read_text(encoding="utf-8")
CONFIGURATIONS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_configuration_shown_loads(configuration: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(configuration)

    assert build_services(load_config(path, {"CLOUD_KEY": "x"}))


def test_the_names_shown_lead_where_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIGURATIONS[0])

    services = build_services(load_config(path, {"CLOUD_KEY": "x"}))
    table = ModelTable.of(Offer(service, Abilities("any")) for service in services)

    assert table.find("gpt-4o-mini").offer.service.id == "llama3"
    assert table.find("big").target == "provider/model-70b"


def test_every_error_code_named_is_one_there_is() -> None:
    known = {error.code for error in vars(errors).values() if hasattr(error, "code")}

    named = set(re.findall(r"\d{3} `(\w+)`", PAGE))

    assert named
    assert named <= known


def test_the_headers_that_stay_here_are_those_named() -> None:
    named = re.search(r"The client's (.*?) are never passed on", PAGE)

    assert named is not None
    assert {name.lower().encode() for name in re.findall(r"`([\w-]+)`", named[1])} == CREDENTIALS


def test_ollamas_paths_shown_are_answered() -> None:
    chats = set(re.findall(r"`(/api/(?:chat|generate|embed))`", PAGE))

    assert len(chats) == 3
    assert all(path.encode() in OLLAMA.endpoints for path in chats)


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]

    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
