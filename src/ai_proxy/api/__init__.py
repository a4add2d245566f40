"""The management API, a FastAPI application behind the gateway."""
