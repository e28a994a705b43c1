"""What groups of settings have in common, and what the environment variables begin with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

PREFIX = "CANDLEFLEET_"
DELIMITER = "__"


class Group(BaseModel):
    """Base of the nested groups: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
