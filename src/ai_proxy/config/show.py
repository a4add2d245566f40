"""The effective configuration as users see it: defaults filled in, secrets masked."""

import io
import re
from typing import Any

from ruamel.yaml import YAML

from ai_proxy.config.effective import effective
from ai_proxy.config.load import Loaded

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
        holder = data
        for key in path[:-1]:
            holder = holder[key]  # type: ignore[index] # a path leads through mappings and lists
        holder[path[-1]] = text  # type: ignore[index]
    for owner in (*data["types"].values(), *data["services"].values()):
        for name, value in owner.get("env", {}).items():
            if _SECRET_NAME.search(name) and "${" not in value:
                owner["env"][name] = MASK
    return data


def to_yaml(data: dict[str, Any]) -> str:
    """Return plain data as YAML."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()
