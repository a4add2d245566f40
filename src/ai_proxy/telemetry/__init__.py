"""Logs and metrics, behind a port."""
