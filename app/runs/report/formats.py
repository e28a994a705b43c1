"""How numbers, times and lengths of time are written on the page. Pure."""

from __future__ import annotations

from datetime import datetime

#: What stands where a number is not defined.
NONE = "\u2013"

_MINUS = "\u2212"
_LENGTHS = ((86_400 * 365.25, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with thousands separated and a real minus."""
    if value is None:
        return NONE
    text = f"{value:,.{digits}f}"
    is_zero = not text.strip("-0.,")
    return text.lstrip("-") if is_zero else text.replace("-", _MINUS)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a percentage; beyond a million percent, digits say nothing."""
    if value is None:
        return NONE
    if abs(value) >= 1e6:
        return f"{value:.0e} %".replace("-", _MINUS).replace("+", "")
    return f"{number(value, digits)} %"


def signed(value: float | None, digits: int = 1) -> str:
    """Write a percentage with its sign."""
    text = percent(value, digits)
    return f"+{text}" if value is not None and value > 0 and text.strip("0. %") else text


def compact(value: float | None) -> str:
    """Write a percentage without its sign of per cent, with fewer digits the larger it is."""
    if value is None:
        return NONE
    return number(value, 1 if abs(value) < 99.95 else 0) if abs(value) < 1e6 else percent(value).removesuffix(" %")


def price(value: float | None) -> str:
    """Write a price with six significant digits, however large or small."""
    return NONE if value is None else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


def length(seconds: float | None) -> str:
    """Write a length of time in its largest unit: 1.4 y, 23 d, 6.5 h."""
    if seconds is None:
        return NONE
    size, unit = next((pair for pair in _LENGTHS if seconds >= pair[0]), _LENGTHS[-1])
    count = seconds / size
    return f"{count:.0f} {unit}" if count >= 10 or count == round(count) else f"{count:.1f} {unit}"


def moment(value: datetime | None) -> str:
    """Write a moment to the minute, UTC."""
    return NONE if value is None else f"{value:%Y-%m-%d %H:%M}"


def day(value: datetime | None) -> str:
    """Write the day of a moment, UTC."""
    return NONE if value is None else f"{value:%Y-%m-%d}"
