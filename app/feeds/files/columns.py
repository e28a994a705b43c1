"""Which column of a table holds what: names in any case and order, with the aliases that exports use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The fields of a row in the order in which rows keep them.
PRICES_AND_VOLUME = ("open", "high", "low", "close", "volume")
REQUIRED = ("timestamp", *PRICES_AND_VOLUME)

#: Names per field, the most exact one first: a file that has both `open_time` and `date` is read by `open_time`.
ALIASES: dict[str, tuple[str, ...]] = {
    "timestamp": (
        *("open_time", "opentime", "open_timestamp", "timestamp", "timestamp_ms", "time", "datetime", "date"),
        *("start_time", "start", "unix", "unix_timestamp", "ts", "t"),
    ),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "h"),
    "low": ("low", "low_price", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "base_volume", "vol", "v"),
    "symbol": ("symbol", "pair", "ticker", "instrument"),
    "timeframe": ("timeframe", "interval", "tf"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Positions of the fields in a table; symbol and timeframe are None when only the file name has them."""

    timestamp: int
    values: tuple[int, ...]
    symbol: int | None
    timeframe: int | None


def locate_fields(names: Sequence[str]) -> dict[str, int]:
    """Find the position of every field that a header names.

    Args:
        names: column names as they stand in the file.

    Returns:
        Field to position; fields that the header does not name are absent.
    """
    positions = {name: position for position, name in reversed(list(enumerate(map(_normalise, names))))}
    return {
        field: positions[known[0]]
        for field, aliases in ALIASES.items()
        if (known := [alias for alias in aliases if alias in positions])
    }


def build_columns(fields: dict[str, int]) -> Columns | None:
    """Build the layout of a table, or None when a required field is missing."""
    if any(field not in fields for field in REQUIRED):
        return None
    return Columns(
        timestamp=fields["timestamp"],
        values=tuple(fields[field] for field in PRICES_AND_VOLUME),
        symbol=fields.get("symbol"),
        timeframe=fields.get("timeframe"),
    )


def describe_missing(fields: dict[str, int]) -> str:
    """Build the part of an error message that says which columns were expected and which are not there."""
    missing = [field for field in REQUIRED if field not in fields]
    return f"expected columns named {', '.join(REQUIRED)} (any order and case); not found: {', '.join(missing)}"


def _normalise(name: str) -> str:
    return name.strip().strip("\"'").strip().lower().replace(" ", "_")
