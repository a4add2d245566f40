"""Where an instance of a service is to run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance is to run, as the scheduler chose.

    Attributes:
        node: Name of the machine; empty for the one the proxy runs on.
        devices: GPUs by index or UUID; None for those that the service declares.
    """

    node: str = ""
    devices: tuple[str, ...] | None = None


AS_DECLARED = Placement()
"""This machine, and the devices that the service declares."""
