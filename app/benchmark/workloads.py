"""Workloads: which strategies answer the candles of which symbols. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.strategies import StrategyDefinition, Subscription

#: Module of the strategies that only the benchmark loads.
MODULE = "app.benchmark.strategies"


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of load. Its strategies subscribe to its own symbols, so that all workloads share one catalogue."""

    kind: str
    width: int
    """Strategies that answer each candle."""
    symbols: int
    """Symbols that close together."""
    pause_ms: float = 0.0
    """What a pausing job sleeps."""
    pausing_share: float = 0.0
    """Share of all jobs that pause."""

    @property
    def name(self) -> str:
        """How the report calls it, such as ``light-50``."""
        return f"{self.kind}-{self.width}"

    def symbols_of(self, contender: str, most: int) -> list[str]:
        """Return a contender's own symbols: no series has a gap because another contender had its candles.

        Args:
            contender: its name.
            most: the first so many; the share of pausing jobs holds for any multiple of four.
        """
        return [f"{self.kind}{self.width}.{contender}.{number:04}" for number in range(min(most, self.symbols))]

    def definitions(self) -> Iterator[StrategyDefinition]:
        """Yield the strategies: `width` for every symbol, of which the share pauses."""
        pausing, part = divmod(self.width * self.pausing_share, 1.0)
        everywhere = [f"{self.kind}{self.width}.*"]
        if not part:
            split = {"light": everywhere, "pausing": everywhere}
        else:
            split = {"light": self._endings(part, pauses=False), "pausing": self._endings(part, pauses=True)}
        for number in range(self.width):
            if number == int(pausing) and part:
                yield self._definition(number, split["light"], pauses=False)
                yield self._definition(number, split["pausing"], pauses=True)
            else:
                yield self._definition(number, everywhere, pauses=number < int(pausing))

    def _endings(self, part: float, *, pauses: bool) -> list[str]:
        """Return patterns of the symbols on which a strategy pauses, or does not: spread evenly."""
        found = [n for n in range(self.symbols) if (int((n + 1) * part) > int(n * part)) is pauses]
        return [f"{self.kind}{self.width}.*.{number:04}" for number in found]

    def _definition(self, number: int, patterns: list[str], *, pauses: bool) -> StrategyDefinition:
        params: dict[str, float] = {"look": 4 + number % 16}
        if pauses:
            params["pause_ms"] = self.pause_ms
        return StrategyDefinition(
            name=f"{self.name}-{'pausing' if pauses else 'light'}-{number}",
            implementation=f"{MODULE}:{'Pausing' if pauses else 'Light'}",
            params=params,
            subscription=Subscription(symbols=tuple(patterns)),
            category="bench",
        )


def light(width: int) -> Workload:
    """Return jobs of about 12 microseconds."""
    return Workload("light", width, symbols=64 if width <= 50 else 16)


def mixed(width: int) -> Workload:
    """Return light jobs, of which one in a hundred sleeps 20 ms."""
    return Workload("mixed", width, symbols=64, pause_ms=20.0, pausing_share=0.01)


def heavy(width: int) -> Workload:
    """Return jobs that sleep 10 ms."""
    return Workload("heavy", width, symbols=4, pause_ms=10.0, pausing_share=1.0)


def burst(symbols: int) -> Workload:
    """Return light jobs whose candles close at once, a hundred for each symbol."""
    return Workload("burst", 100, symbols=symbols)


def switched() -> Workload:
    """Return light jobs, a hundred for each candle."""
    return Workload("switch", 100, symbols=8)


def three_pauses() -> Workload:
    """Return three jobs of 10 ms for each candle."""
    return Workload("slots", 3, symbols=2, pause_ms=10.0, pausing_share=1.0)
