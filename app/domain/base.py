"""What every domain value has in common: frozen, and unknown fields are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError


class Value(BaseModel):
    """Base of every domain value: immutable, hashable when its fields are, strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


#: An aware datetime, always normalised to UTC; a naive one is refused.
UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]


def explain(error: ValidationError) -> str:
    """Say in one line what was wrong with a value: each field, what was expected, what was found."""
    items = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))} {item['input']!r:.80}: {item['msg']}" for item in items)
