"""TA-Lib as the indicators call it: its compiled functions, and pandas only once somebody else has imported it.

Where pandas is installed, importing TA-Lib imports it, to accept its Series and DataFrames. A process that never
sees one would pay for that at its start, with memory, and with each call, which goes through a wrapper that looks for
Series.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

PANDAS = "pandas"


class _Later(type):
    """A class of pandas that is looked up when it is used. Without pandas imported, nothing is an instance of it."""

    def __instancecheck__(cls, instance: object) -> bool:
        pandas = sys.modules.get(PANDAS)
        return pandas is not None and isinstance(instance, getattr(pandas, cls.__name__))

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return getattr(import_module(PANDAS), cls.__name__)(*args, **options)


def _import_talib() -> ModuleType:
    """Import TA-Lib without pandas. Strategies that hand it Series or DataFrames get them back all the same.

    TA-Lib asks two things of pandas' classes, isinstance() and to make one: the stand-ins answer both.
    Source: `talib/__init__.py` and `_abstract.pxi` of TA-Lib 0.8.2.
    """
    if PANDAS in sys.modules or find_spec(PANDAS) is None:
        return import_module("talib")
    stand_in = ModuleType(PANDAS)
    stand_in.__dict__.update({name: _Later(name, (), {}) for name in ("Series", "DataFrame")})
    sys.modules[PANDAS] = stand_in
    try:
        return import_module("talib")
    finally:
        del sys.modules[PANDAS]


#: The module, as strategies import it.
talib: Any = _import_talib()

#: Its functions by name, for arrays only: (n,) float64 in, (n,) float64 out, the same bits as through the wrapper.
functions = SimpleNamespace(**{name: inspect.unwrap(getattr(talib, name)) for name in talib.get_functions()})
