"""Where a request goes: paths, services, models."""
