"""What all parts of a configuration share."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """What all parts share: unknown keys and wrong types are errors, nothing changes once it is read."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the keys only: any value may hold a secret that came from the environment."""
        yield "keys", sorted(self.model_fields_set)
