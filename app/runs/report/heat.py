"""Colours of the heat map: steps of a diverging scale that colour-blind people can tell apart. Pure."""

from __future__ import annotations

from collections.abc import Iterable

#: Steps on each side of nothing won or lost.
STEPS = 4

#: Share of the cells that the strongest steps begin beyond: a single outlier must not pale all others.
_USUAL = 0.9


def find_limit(values: Iterable[float | None]) -> float:
    """Return the size from which on a value has the strongest colour: nine in ten are below it."""
    sizes = sorted(abs(value) for value in values if value is not None)
    if not sizes:
        return 1.0
    return sizes[min(len(sizes) - 1, int(_USUAL * len(sizes)))] or 1.0


def step_of(value: float | None, limit: float) -> int | None:
    """Return the step of a value, -STEPS to STEPS; None for none."""
    if value is None:
        return None
    size = min(STEPS, int(abs(value) / limit * STEPS + 0.5))
    return size if value > 0 else -size
