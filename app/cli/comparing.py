"""`candlefleet runs compare`: a run with what live recorded, or with another run. Green: something was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from app.cli.filters import MOST_RUN, RunId
from app.cli.operating import operating
from app.cli.output import Json, Limit, print_json, print_rows, say
from app.cli.run_report import shorten
from app.domain.runs import RunKind
from app.errors import ConfigurationError
from app.operations_compare import LiveComparison, RunComparison, compare_live, compare_runs, find_kind
from app.operations_compare_evaluations import COMPARED, SAID, AnswerPair, EvaluationComparison, compare_evaluations
from app.wording import counted

#: Columns of what live said differently than an evaluate run: those in which nothing differs are left out.
_PAIRS = [(f"live_{name}", f"run_{name}") for name in SAID]


def compare(
    run: RunId,
    other: Annotated[
        int | None, typer.Argument(metavar="RUN2", min=1, max=MOST_RUN, help="Another run of the same kind.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="With what live recorded of the same candles.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List every decision that differs from what live recorded, or the units that differ between two runs.

    Exit code 1: a decision differs from live, or there was nothing to compare.
    """
    if live == (other is not None):
        raise ConfigurationError("expected a second run or --live, found " + ("both" if live else "neither"))
    with operating() as operations:
        if other is None:
            _print_live(compare_live(operations, run), limit, as_json=as_json)
        elif find_kind(operations, run, other) is RunKind.EVALUATE:
            _print_evaluations(compare_evaluations(operations, run, other), limit, as_json=as_json)
        else:
            _print_comparison(compare_runs(operations, run, other), limit, as_json=as_json)


def _print_live(found: LiveComparison, limit: int, *, as_json: bool) -> None:
    rows = [each._asdict() for each in found.differences[:limit]]
    sizes = {"units": found.units, "decisions": found.decisions, "differences": len(found.differences)}
    if as_json:
        print_json({**sizes, "listed": rows})
    else:
        decisions = counted(found.decisions, "decision")
        differing = counted(len(found.differences), "differs", "differ")
        say(f"{counted(found.units, 'unit')}, {decisions} that live recorded too, {differing}")
        _print_table(rows, _PAIRS)
    if not found.units:
        _end_uncompared("no unit succeeded with a revision of the catalogue: other params or a file are none")
    if not found.decisions:
        _end_uncompared("live recorded no decision of the same strategies, revisions and candles")
    if found.differences:
        raise typer.Exit(1)


def _print_evaluations(found: EvaluationComparison, limit: int, *, as_json: bool) -> None:
    sizes, listed = found.count(), found.differing[:limit]
    if as_json:
        print_json({**sizes, "listed": [each._asdict() for each in listed]})
    else:
        text = (
            "{units} in both, {differing:,} answered differently, {other_candle:,} on another candle; "
            "{selected_only_first:,} selected in the first run only, {selected_only_second:,} in the second only"
        )
        say(text.format(units=counted(sizes["common"], "unit"), **sizes))
        names = (*COMPARED, "open_time", "selected")
        _print_table([_answers(each) for each in listed], [(f"{name}_1", f"{name}_2") for name in names])
    _require_common(sizes["common"])


def _answers(pair: AnswerPair) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": pair.strategy, "params": pair.params, "symbol": pair.symbol}
    for name in (*COMPARED, "open_time"):
        row |= {f"{name}_1": pair.first[name], f"{name}_2": pair.second[name]}
    first, second = pair.is_selected
    return row | {"selected_1": first, "selected_2": second}


def _print_table(rows: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> None:
    """Print rows without the pairs of columns that are equal in all of them."""
    equal = {name for pair in pairs if all(row.get(pair[0]) == row.get(pair[1]) for row in rows) for name in pair}
    if rows:
        print_rows(rows, [name for name in rows[0] if name not in equal], as_json=False, empty="")


def _print_comparison(found: RunComparison, limit: int, *, as_json: bool) -> None:
    differing = [each for each in found.units if each.differs]
    sizes = {"common": len(found.units), "only_first": found.only_first, "only_second": found.only_second}
    if as_json:
        print_json({**sizes, "differing": len(differing), "listed": [each._asdict() for each in differing[:limit]]})
    else:
        say(f"{counted(len(found.units), 'unit')} in both, {len(differing):,} with other figures", style=None)
        pairs = [(each, shorten(each.first), shorten(each.second)) for each in differing[:limit]]
        rows = [
            {"strategy": each.strategy, "params": each.params, "symbol": each.symbol}
            | {f"{name}_1": value for name, value in first.items()}
            | {f"{name}_2": value for name, value in second.items()}
            for each, first, second in pairs
        ]
        _print_table(rows, ())
    _require_common(len(found.units))


def _require_common(count: int) -> None:
    if not count:
        _end_uncompared("the runs have no unit in common: the same strategy, params and symbol")


def _end_uncompared(reason: str) -> None:
    say(f"Nothing was compared: {reason}", style="yellow")
    raise typer.Exit(1)
