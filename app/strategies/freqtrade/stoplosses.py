"""Stop distances as `custom_stoploss` hooks compute them; offered so that files which import them load."""

from __future__ import annotations


def stoploss_from_open(
    open_relative_stop: float, current_profit: float, is_short: bool = False, leverage: float = 1.0
) -> float:
    """Turn a stop relative to the entry into one relative to the present price.

    Args:
        open_relative_stop: ratio of the entry price, with leverage.
        current_profit: ratio of the entry price, with leverage.
        is_short: whether a rising price is the loss.
        leverage: factor of the position.

    Returns:
        Ratio of the present price, with leverage, at least 0; 1 where the position is worth nothing any more.
    """
    side = -1 if is_short else 1
    worth = 1 + side * current_profit / leverage
    if worth <= 0:
        return 0.0 if is_short else 1
    stop = 1 + side * open_relative_stop / leverage
    return max(side * (1 - stop / worth) * leverage, 0.0)


def stoploss_from_absolute(
    stop_rate: float, current_rate: float, is_short: bool = False, leverage: float = 1.0
) -> float:
    """Turn a stop price into one relative to the present price.

    Args:
        stop_rate: quote currency.
        current_rate: quote currency.
        is_short: whether a rising price is the loss.
        leverage: factor of the position.

    Returns:
        Ratio of the present price, with leverage, at least 0; 1 where there is no price.
    """
    if current_rate == 0:
        return 1
    distance = 1 - stop_rate / current_rate
    return max((-distance if is_short else distance) * leverage, 0.0)
