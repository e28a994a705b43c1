"""Names that strategy files import for annotations and for hooks that never run here. Using one is refused."""

from __future__ import annotations

from typing import Any, NoReturn

from app.errors import ConfigurationError


class _Refusing(type):
    """A class that may be named, but neither asked for anything nor created."""

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ConfigurationError(f"{cls.__name__}.{name} is not offered: there are no trades, orders or wallets here")

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        raise ConfigurationError(f"{cls.__name__} is not offered: there are no trades, orders or wallets here")


class Trade(metaclass=_Refusing):
    """A trade, as annotations name it."""


class LocalTrade(metaclass=_Refusing):
    """A trade of a backtest, as annotations name it."""


class Order(metaclass=_Refusing):
    """An order, as annotations name it."""


class PairLocks(metaclass=_Refusing):
    """Locks of pairs, as annotations name them."""


class Wallets(metaclass=_Refusing):
    """Balances; what `self.wallets` is."""
