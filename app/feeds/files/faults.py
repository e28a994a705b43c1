"""Why a row is refused: the reasons, and one code per row of a block. Knows nothing of files."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Reason(StrEnum):
    """Why a row was refused; where several apply, the one that is found first counts."""

    CELL_COUNT = "cell_count"
    MISSING_CELL = "missing_cell"
    BAD_NUMBER = "bad_number"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_SYMBOL = "bad_symbol"
    BAD_TIMEFRAME = "bad_timeframe"
    OFF_GRID = "off_grid"
    NOT_FINITE = "not_finite"
    BAD_PRICE = "bad_price"
    BAD_VOLUME = "bad_volume"
    BAD_RANGE = "bad_range"
    DUPLICATE = "duplicate"


_REASONS = list(Reason)
_CODES = {reason: code for code, reason in enumerate(_REASONS, start=1)}


class Faults:
    """One reason or none for each row of a block; the first reason of a row stays."""

    def __init__(self, count: int) -> None:
        self._codes = np.zeros(count, dtype=np.uint8)

    def blame(self, rows: Mask | int, reason: Reason) -> None:
        """Refuse rows, named by a mask or one index, unless they are refused already."""
        if isinstance(rows, np.ndarray):
            self._codes[rows & (self._codes == 0)] = _CODES[reason]
        elif not self._codes[rows]:
            self._codes[rows] = _CODES[reason]

    @property
    def clean(self) -> Mask:
        """Mask of the rows that nothing was found against."""
        clean: Mask = self._codes == 0
        return clean

    def counts(self) -> Counter[str]:
        """Count the refused rows by reason."""
        codes, numbers = np.unique(self._codes[self._codes > 0], return_counts=True)
        return Counter({_REASONS[code - 1].value: int(number) for code, number in zip(codes, numbers, strict=True)})
