"""Cells to numbers: prices as Python's float reads them, open times to microseconds of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from app.domain.candles import EPOCH
from app.feeds.files.faults import Faults, FloatArray, IntArray, Reason

Cell = str | int | float | None

#: Below this an epoch is in seconds (to the year 5138; milliseconds before March 1973 would be misread).
SECONDS_BELOW = 10**11
#: Below this an epoch is in milliseconds.
MILLISECONDS_BELOW = 10**14
#: Below this an epoch is in microseconds, from here in nanoseconds (cut off to whole microseconds).
MICROSECONDS_BELOW = 10**17

#: Texts that mean that there is no value; "nan" is not one: it is a number that is not finite.
_MISSING = {"", "null", "none", "na", "n/a", "-"}
_MICROSECOND = timedelta(microseconds=1)


def parse_numbers(cells: Sequence[Cell], faults: Faults) -> FloatArray:
    """Convert a column of cells to floats; cells that are none are blamed and become NaN.

    Returns:
        (n,) float64, each exactly ``float(cell)``.
    """
    try:
        return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))  # type: ignore[arg-type]  # None raises
    except (ValueError, TypeError):
        return np.array([_parse_number(cell, row, faults) for row, cell in enumerate(cells)], dtype=np.float64)


def parse_times(cells: Sequence[Cell], faults: Faults) -> IntArray:
    """Convert a column of open times to microseconds of the epoch; cells that are none are blamed and become 0.

    A number is an epoch whose unit follows from its size, cell by cell. Any other text is ISO 8601;
    without an offset it is UTC.
    """
    try:
        return to_microseconds(np.fromiter(map(int, cells), dtype=np.int64, count=len(cells)))  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return np.array([_parse_time(cell, row, faults) for row, cell in enumerate(cells)], dtype=np.int64)


def to_microseconds(epochs: IntArray) -> IntArray:
    """Convert epochs of any unit to microseconds; the unit follows from the size of each."""
    size = np.abs(epochs.astype(np.float64))
    seconds = size < SECONDS_BELOW
    milliseconds = size < MILLISECONDS_BELOW
    microseconds = size < MICROSECONDS_BELOW
    units = [epochs * 1_000_000, epochs * 1_000, epochs]
    return np.select([seconds, milliseconds, microseconds], units, epochs // 1_000)


def _parse_number(cell: Cell, row: int, faults: Faults) -> float:
    try:
        return float(cell)  # type: ignore[arg-type]  # None raises
    except (ValueError, TypeError):
        faults.blame(row, Reason.MISSING_CELL if _is_missing(cell) else Reason.BAD_NUMBER)
        return math.nan


def _parse_time(cell: Cell, row: int, faults: Faults) -> int:
    if _is_missing(cell):
        faults.blame(row, Reason.MISSING_CELL)
        return 0
    try:
        return _read_epoch(cell) if isinstance(cell, int | float) else _read_time_text(str(cell).strip())
    except (ValueError, OverflowError):
        faults.blame(row, Reason.BAD_TIMESTAMP)
        return 0


def _read_time_text(text: str) -> int:
    try:
        return _read_epoch(int(text))
    except ValueError:
        pass
    try:
        return _read_epoch(float(text))
    except ValueError:
        return _read_iso(text)


def _read_epoch(epoch: float) -> int:
    if not math.isfinite(epoch) or abs(epoch) >= 2**63:
        raise ValueError(f"{epoch} is no time")
    if isinstance(epoch, int):
        return int(to_microseconds(np.array([epoch], dtype=np.int64))[0])
    factor = 10**6 if abs(epoch) < SECONDS_BELOW else 10**3 if abs(epoch) < MILLISECONDS_BELOW else 1
    return round(epoch * factor) if abs(epoch) < MICROSECONDS_BELOW else int(epoch) // 1000


def _read_iso(text: str) -> int:
    moment = datetime.fromisoformat(text.removesuffix("UTC").rstrip())
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // _MICROSECOND


def _is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING)
