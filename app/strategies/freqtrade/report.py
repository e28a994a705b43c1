"""What a strategy file says over whole series of candles, as a plain document to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.strategies.bars import Bars
from app.strategies.freqtrade.analysis import Analysis, analyse
from app.strategies.freqtrade.loading import find_parameters, load_file, try_out
from app.strategies.freqtrade.support import describe_unsupported

#: The columns of a strategy's answer, as they are called in a report.
COLUMNS = ("enter_long", "exit_long", "enter_short", "exit_short")


def build_report(path: Path, name: str, series: Sequence[Bars]) -> dict[str, Any]:
    """Analyse every series with the strategy of a file.

    Args:
        path: the file.
        name: the class, or empty for the only one in it.
        series: the candles.

    Returns:
        Plain JSON values: the strategy, the parameters in force, what is left out, and for each series its rows and
        every row with a cell that counts.

    Raises:
        ConfigurationError: the file cannot be loaded, or asks for something that is not offered.
        StrategyError: the strategy raised or answered wrongly.
    """
    source = load_file(path, name)
    parameters = find_parameters(try_out(source))
    return {
        "strategy": source.name,
        "file": str(path),
        "parameters": {key: _plain(parameter.value) for key, parameter in parameters.items()},
        "startup": source.cls.startup_candle_count,
        "left_out": list(describe_unsupported(source.cls)),
        "series": [_series(bars, analyse(source, bars)) for bars in series],
    }


def _series(bars: Bars, analysis: Analysis) -> dict[str, Any]:
    columns = {name: getattr(analysis, name) for name in COLUMNS}
    rows = np.flatnonzero(np.any(list(columns.values()), axis=0))
    return {
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.value,
        "rows": len(analysis.open_time),
        **{name: int(cells.sum()) for name, cells in columns.items()},
        "warnings": list(analysis.warnings),
        "signals": [_signal(analysis, int(row)) for row in rows],
    }


def _signal(analysis: Analysis, row: int) -> dict[str, Any]:
    opened = datetime.fromtimestamp(analysis.open_time[row].item() / 1000, UTC).isoformat()
    cells = {name: int(getattr(analysis, name)[row]) for name in COLUMNS}
    tags = {"enter_tag": analysis.enter_tag[row], "exit_tag": analysis.exit_tag[row]}
    return {"open_time": opened, **cells, **tags, "action": int(analysis.action[row])}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)
