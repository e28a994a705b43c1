"""A strategy that answers with everything that a neighbour could have changed."""

from __future__ import annotations

import decimal
import gc
import locale
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

from app.strategies.sdk import Context, Indicator, Signal, Strategy
from tests.quant.revealing import digest


class Notices(Strategy):
    """Answers with everything that a neighbour could have changed."""

    rsi, atr, trend = Indicator.rsi(14), Indicator.atr(14), Indicator.ema(3).on("4h")

    def on_candle(self, context: Context) -> Signal:
        with warnings.catch_warnings(record=True):
            quotient = np.array([1.0, 0.0]) / np.array([0.0, 0.0])  # raises where numpy or warnings are told to
        return Signal(
            action=1,
            strength=0.5,
            extras={
                "window": digest(context.bars),
                "lines": {name: line.tobytes().hex()[-64:] for name, line in context.indicators.items()},
                "quotient": repr(quotient.tolist()),
                "seventh": str(decimal.Decimal(1) / 7),
                "errors": repr(sorted(np.geterr().items())),
                "filters": repr(warnings.filters)[:2000],
                "depth": sys.getrecursionlimit(),
                "collects": gc.isenabled(),
                "alarm": repr(signal.getsignal(signal.SIGALRM)).partition(" at ")[0],
                "folder": str(Path.cwd()),
                "locale": locale.setlocale(locale.LC_ALL),
                "meddled": os.environ.get("MEDDLED"),
                "home": os.environ.get("PATH"),
            },
        )
