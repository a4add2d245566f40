"""The effective configuration as users see it: defaults filled in, secrets masked."""

import io
import re
from typing import Any

from ruamel.yaml import YAML

from ai_proxy.config.effective import effective
from ai_proxy.config.load import Loaded
from ai_proxy.config.problems import KeyPath

MASK = "********"

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)


def show(loaded: Loaded) -> dict[str, Any]:
    """Return the effective configuration as plain data.

    Values from the environment or a file appear as the reference in the configuration, never as their value.
    A literal value of a variable whose name suggests a secret is masked.
    """
    data = effective(loaded.config).model_dump(mode="json", exclude_none=True)
    for name, service in data["services"].items():
        data["services"][name] = {key: value for key, value in service.items() if value not in ([], {})}
    for path, text in loaded.written.items():
        _put(data, path, text)
    for holder in (*data["types"].values(), *data["services"].values()):
        _mask_variables(holder.get("env", {}))
    return data


def to_yaml(data: dict[str, Any]) -> str:
    """Return plain data as YAML."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _put(data: Any, path: KeyPath, text: str) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = text


def _mask_variables(env: dict[str, str]) -> None:
    for name, value in env.items():
        if _SECRET_NAME.search(name) and "${" not in value:
            env[name] = MASK
