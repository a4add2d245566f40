"""The data directory: what is kept for good, for the owner only."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs


def data_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory; whoever writes there makes it.

    >>> data_folder({"AI_PROXY_DATA_DIR": "/srv/ai-proxy"})
    PosixPath('/srv/ai-proxy')
    """
    return Path(env.get("AI_PROXY_DATA_DIR") or platformdirs.user_data_path("ai-proxy", appauthor=False))
