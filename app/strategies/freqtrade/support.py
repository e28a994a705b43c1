"""What of a strategy is not run here, said in words."""

from __future__ import annotations

from collections.abc import Callable

from app.strategies.freqtrade.interface import IStrategy

#: Hooks that place, size or end trades, or that a running bot calls: nothing here calls them.
HOOKS = (
    "custom_stoploss",
    "custom_exit",
    "custom_sell",
    "custom_roi",
    "custom_entry_price",
    "custom_exit_price",
    "custom_stake_amount",
    "adjust_trade_position",
    "adjust_entry_price",
    "adjust_exit_price",
    "adjust_order_price",
    "confirm_trade_entry",
    "confirm_trade_exit",
    "check_entry_timeout",
    "check_exit_timeout",
    "order_filled",
    "leverage",
    "bot_loop_start",
    "set_freqai_targets",
)

_IsSet = Callable[[type[IStrategy]], bool]

#: Attributes that change how trades are run, when they are set, and what becomes of them here.
_SETTINGS: tuple[tuple[str, _IsSet, str], ...] = (
    ("protections", lambda cls: bool(cls.protections), "is not applied"),
    ("position_adjustment_enable", lambda cls: bool(cls.position_adjustment_enable), "is not applied"),
    ("trailing_stop", lambda cls: bool(cls.trailing_stop), "is carried in extras.trailing, not applied"),
    ("use_exit_signal", lambda cls: not cls.use_exit_signal, "= False is not applied: exits are reported all the same"),
    ("exit_profit_only", lambda cls: bool(cls.exit_profit_only), "is not applied: no position is known here"),
    ("ignore_roi_if_entry_signal", lambda cls: bool(cls.ignore_roi_if_entry_signal), "is not applied"),
    (
        "minimal_roi",
        lambda cls: set(map(str, cls.minimal_roi)) - {"0"} != set(),
        "after the entry is carried in extras.minimal_roi; the target is that of minute 0",
    ),
)


def describe_unsupported(cls: type[IStrategy]) -> tuple[str, ...]:
    """Say what a strategy has that is not run here; empty when its signals are all there is to it."""
    hooks = [f"{name}() is never called" for name in HOOKS if _is_overridden(cls, name)]
    return (*hooks, *(f"{name} {fate}" for name, is_set, fate in _SETTINGS if is_set(cls)))


def _is_overridden(cls: type[IStrategy], name: str) -> bool:
    return hasattr(cls, name) and getattr(cls, name) is not getattr(IStrategy, name, None)
