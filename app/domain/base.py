"""What every domain value has in common: frozen, and unknown fields are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError


class Value(BaseModel):
    """Base of every domain value: immutable, hashable when its fields are, strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("expected a moment in the years 1 to 9999 of UTC") from error


def read_moment(text: str) -> datetime:
    """Read a date or a moment as people write them (ISO 8601): UTC where no offset is stated, and returned as UTC.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    return _to_utc(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)


#: An aware datetime, always normalised to UTC; a naive one is refused.
UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]


def explain(error: ValidationError) -> str:
    """Say in one line what was wrong with a value: each field, what was expected, what was found."""
    items = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))} {item['input']!r:.80}: {item['msg']}" for item in items)
