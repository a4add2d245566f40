"""Services run as containers of a Docker engine."""
