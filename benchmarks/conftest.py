"""What pytest must leave alone here: it runs in an environment of its own."""

collect_ignore = ["fastapi_proxy.py"]
