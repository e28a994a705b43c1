"""What a stress test found: figures, the validation record of its run, and the checks of the test itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.runs.validation import Check
from app.storage.runs import Run
from app.stress.markets import Markets
from app.stress.plan import Plan

#: Most memory of a slot, MB.
MOST_MEMORY_MB = 200.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A run that is complete."""

    run: Run
    handed_in_at: datetime
    """When the specification was handed in, by this machine's clock, which is Postgres' too."""
    memory_bytes: tuple[int, ...]
    """Most of each slot, counted in proportion where it is shared."""
    selection: dict[str, Any]
    claimed_at: datetime
    """When a slot claimed its first markets."""
    evaluated_at: datetime
    """When the last answers were recorded."""

    @property
    def elapsed_s(self) -> float:
        """From the specification handed in to the run being complete: planned, stored, evaluated, selected."""
        return ((self.run.finished_at or self.handed_in_at) - self.handed_in_at).total_seconds()

    def stages_ms(self) -> dict[str, float]:
        """Return what the time went into, stage by stage, milliseconds."""
        moments = {
            "planning": self.run.created_at,
            "waiting for a slot": self.claimed_at,
            "evaluating": self.evaluated_at,
            "selecting": self.run.finished_at or self.evaluated_at,
        }
        begun, stages = self.handed_in_at, {}
        for stage, ended in moments.items():
            stages[stage] = round((ended - begun).total_seconds() * 1000, 1)
            begun = ended
        return stages


@dataclass(frozen=True, slots=True)
class Report:
    """What a stress test found."""

    plan: Plan
    markets: Markets
    strategies: tuple[str, ...]
    rounds: Sequence[Measured]

    @property
    def measured(self) -> Measured:
        """The round of median length."""
        return sorted(self.rounds, key=lambda each: each.elapsed_s)[len(self.rounds) // 2]

    def markets_per_s(self, measured: Measured) -> float:
        """Return the markets a second of a round, each with all strategies."""
        return len(self.markets.symbols) / measured.elapsed_s

    @property
    def memory_mb(self) -> float:
        """Of the slot that took most, in any round, MB."""
        return max(most for each in self.rounds for most in each.memory_bytes) / 1e6

    def checks(self) -> list[Check]:
        """Return what must hold, that of the run's validation record first."""
        validation = self.measured.run.validation or {"checks": []}
        return [*(Check(**check) for check in validation["checks"]), self._check_answers(), self._check_memory()]

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        return all(check.passed for check in self.checks())

    def document(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        measured, run = self.measured, self.measured.run
        return {
            "size": self.plan.size.value,
            "source": self.markets.source,
            "timeframe": self.markets.timeframe.value,
            "markets": len(self.markets.symbols),
            "strategies": list(self.strategies),
            "candles_stored": len(self.markets.symbols) * self.markets.candles,
            "candles_read": len(self.markets.symbols) * run.window,
            "evaluations": run.units,
            "slots": len(measured.memory_bytes),
            "elapsed_s": measured.elapsed_s,
            "stages_ms": measured.stages_ms(),
            "markets_per_s": self.markets_per_s(measured),
            "evaluations_per_s": run.units / measured.elapsed_s,
            "rounds": [round(self.markets_per_s(each), 1) for each in self.rounds],
            "memory_mb": [round(held / 1e6, 1) for held in measured.memory_bytes],
            "selection": measured.selection,
            "validation": run.validation,
            "checks": [check.model_dump(mode="json") for check in self.checks()],
            "passed": self.passed,
        }

    def _check_answers(self) -> Check:
        counts = self.measured.selection
        answered = counts["selected"] + sum(counts["rejected"].values())
        units = len(self.markets.symbols) * len(self.strategies)
        return Check(
            name="answers",
            expected=f"each of {units:,} selected or rejected, none failed",
            found=f"{answered:,}, {counts['rejected'].get('failed', 0):,} failed",
            passed=answered == units and not counts["rejected"].get("failed"),
        )

    def _check_memory(self) -> Check:
        return Check(
            name="memory of a slot",
            expected=f"under {MOST_MEMORY_MB:g} MB",
            found=f"{self.memory_mb:.0f} MB at most",
            passed=self.memory_mb < MOST_MEMORY_MB,
        )
