"""The placement of an instance."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Where to run an instance, as the scheduler chose.

    Attributes:
        node: Name of the machine; empty for the one the proxy runs on.
        devices: GPUs by index or UUID; None for those that the service declares.
    """

    node: str = ""
    devices: tuple[str, ...] | None = None


AS_DECLARED = Placement()
"""This machine, and the devices that the service declares."""
