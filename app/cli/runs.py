"""`candlefleet runs`: batch runs, from their specification to their end."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from app.cli.comparing import compare
from app.cli.deletion import delete_runs
from app.cli.filters import RunId
from app.cli.operating import operating
from app.cli.output import Json, Limit, Offset, out, print_json, print_rows, say
from app.cli.run_report import report, shorten
from app.cli.selection import print_evaluations, print_selection, print_validation
from app.cli.session import stop_on_signals
from app.cli.watching import showing
from app.domain.candles import Timeframe
from app.domain.runs import ENDED, Method, RunKind, RunSpec, RunState, UnitState
from app.errors import ConfigurationError, StorageUnavailableError
from app.operations import Operations
from app.operations_estimate import estimate
from app.operations_evaluations import load_selection
from app.operations_runs import (
    Watch,
    cancel,
    load,
    load_newest,
    pause,
    plan,
    require_alive,
    require_sound,
    resume,
    retry_failed,
    start,
    with_a_node,
)
from app.operations_runs_shown import describe_plan, describe_run, list_trades, list_units
from app.runs.specification import read_draft
from app.storage.runs import Progress as RunProgress
from app.storage.runs import Run, dump_spec
from app.wording import counted

cli = typer.Typer(help="Start, watch and steer batch runs.", no_args_is_help=True)

#: Strategies that `list` names of a run.
FEW = 3

#: Seconds between two looks at a run.
LOOK_EVERY_S = 0.25


@cli.command("start")
def start_run(
    spec: Annotated[Path | None, typer.Argument(help="A TOML specification; flags win over it.")] = None,
    kind: Annotated[
        RunKind | None, typer.Option(help="backtest: a range; evaluate: the latest candle, and a selection.")
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Name in the catalogue or definition file; repeatable.")
    ] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Stored series, with * and ?; repeatable.")] = None,
    timeframe: Annotated[Timeframe | None, typer.Option(help="Of the candles.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Open time of the first candle, UTC or with offset."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="The same of the first one beyond.")] = None,
    grid: Annotated[list[str] | None, typer.Option(metavar="PARAM=V,V", help="Values to try; repeatable.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key, such as trading.fee_percent=0.2; repeatable."),
    ] = None,
    method: Annotated[Method | None, typer.Option(help="windows: exactly as live, slower.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: started again, the same run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do and cost.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch it, with a worker of its own if none serves runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run, or say everything that is wrong with it."""
    flags = {
        **{
            "kind": kind,
            "strategies": strategy,
            "symbols": symbol,
            "timeframe": timeframe,
            "method": method,
            "key": key,
        },
        **{"from": since, "to": until, "grid": _read_grid(grid or ())},
    }
    given = {name: value for name, value in flags.items() if value not in (None, [], {})}
    draft = read_draft(spec, given, assign or ())
    with operating() as operations:
        wanted = require_sound(operations, draft)
        if dry_run:
            _print_plan(operations, wanted, as_json=as_json)
            return
        started = start(operations, wanted)
        for warning in started.run.warnings:
            say(f"warning: {warning}", style="yellow")
        say(
            f"Run {started.run.id}: {counted(started.run.units, 'unit')}"
            + ("" if started.is_new else ", started before")
        )
        if wait:
            _watch(operations, started.run, own_node=True)
        found, progress = load(operations, started.run.id)
    _print_run(found, progress, as_json=as_json)
    if wait:
        _exit(progress)


@cli.command("list")
def list_runs(limit: Limit = 20, offset: Offset = 0, as_json: Json = False) -> None:
    """List runs, the newest first."""
    with operating() as operations:
        rows = [describe_run(*each) for each in load_newest(operations, limit, offset)]
    rows = rows if as_json else [{**row, "strategies": _few(row["strategies"])} for row in rows]
    columns = ("id", "state", "kind", "strategies", "symbols", "timeframe", "units", "ended", "failed", "created_at")
    print_rows(rows, columns, as_json=as_json, empty="No runs: start one with 'candlefleet runs start SPEC.toml'.")


@cli.command()
def show(
    run: RunId,
    state: Annotated[UnitState | None, typer.Option(help="Only units of this state.")] = None,
    limit: Limit = 20,
    offset: Offset = 0,
    as_json: Json = False,
) -> None:
    """Show a run and its units, the best return or edge first; 'runs report' goes by Sharpe ratio."""
    with operating() as operations:
        found, progress = load(operations, run)
        with operations.reading() as connection:
            units = list_units(connection, found, state, limit, offset)
    if as_json:
        print_json({**describe_run(found, progress), "spec": dump_spec(found.spec), "units_listed": units})
        return
    _print_run(found, progress, as_json=False)
    for warning in found.warnings:
        say(f"warning: {warning}", style="yellow")
    if progress.is_trimmed:
        say("Its details were deleted (CANDLEFLEET_RUNS__DETAILS_DAYS); all figures are whole", style="yellow")
    if found.spec.kind is RunKind.EVALUATE:
        print_evaluations(units)
        return
    rows = [{**unit, **shorten(unit["metrics"])} for unit in units]
    columns = ("number", "strategy", "params", "symbol", "candles", "state", *shorten(None))
    failed = ("error",) if any(unit["error"] for unit in units) else ()
    caption = "The best return first; 'runs report' goes by Sharpe ratio"
    print_rows(rows, (*columns, *failed), as_json=False, empty="No such units.", caption=caption)


@cli.command("trades")
def show_trades(
    run: RunId,
    unit: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Number of the unit, as 'runs show' lists it.")],
    limit: Limit = 50,
    offset: Offset = 0,
    as_json: Json = False,
) -> None:
    """List the closed trades of a backtest's unit, the oldest first."""
    with operating() as operations, operations.reading() as connection:
        rows = list_trades(connection, run, unit, limit, offset)
    columns = ("number", "opened_at", "closed_at", "side", "quantity", "entry_price", "exit_price", "fees", "profit")
    print_rows(rows, (*columns, "reason"), as_json=as_json, empty="No trades.")


@cli.command("selection")
def show_selection(run: RunId, limit: Limit = 20, as_json: Json = False) -> None:
    """Show the positions that an evaluate run selected, and what it rejected, the best edge first."""
    with operating() as operations:
        report = load_selection(operations, run, limit)
    if as_json:
        print_json({**report.summary, "positions": report.selected, "rejections": report.rejected})
    else:
        print_selection(report)


@cli.command()
def watch(run: RunId, as_json: Json = False) -> None:
    """Watch a run to its end: rate, time left, failures, slots in use. Exit code 1 unless every unit succeeded."""
    with operating() as operations:
        _watch(operations, load(operations, run)[0], own_node=False)
        found, progress = load(operations, run)
    _print_run(found, progress, as_json=as_json)
    _exit(progress)


@cli.command("pause")
def pause_run(run: RunId, as_json: Json = False) -> None:
    """Stop a run's work within a second; what is done is kept."""
    _steer(pause, run, as_json=as_json)


@cli.command("resume")
def resume_run(run: RunId, as_json: Json = False) -> None:
    """Let a paused run go on."""
    _steer(resume, run, as_json=as_json)


@cli.command("cancel")
def cancel_run(run: RunId, as_json: Json = False) -> None:
    """End a run; what is done is kept, what is not done never counts."""
    _steer(cancel, run, as_json=as_json)


@cli.command()
def retry(
    run: RunId,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed.")] = False,
    as_json: Json = False,
) -> None:
    """Execute units of a run again."""
    if not failed:
        raise ConfigurationError("expected --failed: units that succeeded are not executed again")
    with operating() as operations:
        count = retry_failed(operations, run)
    if as_json:
        print_json({"run": run, "units": count})
    elif not count:
        say(f"No unit of run {run} failed.")
    else:
        say(f"{counted(count, 'unit')} of run {run} {'is' if count == 1 else 'are'} executed again.")


def _watch(operations: Operations, run: Run, *, own_node: bool) -> None:
    """Show a run until it ends, also through a pause, or until the operator has seen enough; it goes on without us."""
    watch = Watch(operations, run.id)
    with ExitStack() as stack:
        stack.callback(watch.close)
        stop = stack.enter_context(stop_on_signals())
        node = stack.enter_context(with_a_node(operations)) if own_node else None
        if node is not None:
            say("No worker node serves runs: one runs as long as this command")
        show = stack.enter_context(showing(run))
        while True:
            progress = _look(watch, stop)
            show(progress)
            if node is not None:
                require_alive(node)
            if progress.state in ENDED or stop.wait(LOOK_EVERY_S):
                return


def _look(watch: Watch, stop: Event) -> RunProgress:
    """Look at a run; while Postgres is away, wait for it: the run waits, too.

    Raises:
        StorageUnavailableError: it is away, and the operator has seen enough.
    """
    is_told = False
    while True:
        try:
            return watch.look(datetime.now(UTC))
        except StorageUnavailableError as error:
            if not is_told:
                say(f"waiting for Postgres: {error}", style="yellow")
                is_told = True
            if stop.wait(LOOK_EVERY_S):
                raise


def _print_plan(operations: Operations, spec: RunSpec, *, as_json: bool) -> None:
    planned = plan(operations, spec)
    cost = estimate(operations, spec, planned)
    document = describe_plan(planned, cost)
    if as_json:
        print_json(document)
        return
    for warning in planned.warnings:
        say(f"warning: {warning}", style="yellow")
    sizes = {noun: counted(document[f"{noun}s"], noun) for noun in ("unit", "variant", "symbol", "candle")}
    out.print("{unit}: {variant} on {symbol}, {candle}".format(**sizes), highlight=False)
    if cost.work_s is None:
        out.print(f"How long is not known: {', '.join(cost.unknown)} never ran")
    else:
        elapsed = "no node serves runs now" if cost.elapsed_s is None else f"about {cost.elapsed_s:,.1f} s"
        out.print(f"{cost.work_s:,.1f} s of work on {counted(cost.slots, 'slot')}: {elapsed}", highlight=False)


def _print_run(run: Run, progress: RunProgress, *, as_json: bool) -> None:
    row = describe_run(run, progress)
    if as_json:
        print_json(row)
        return
    columns = ("id", "state", "units", "succeeded", "failed", "cancelled", "pending", "candles_done", "slots")
    print_rows([row], (*columns, "work_s", "memory_mb"), as_json=False, empty="")
    if row["validation"] is not None:
        print_validation(row["validation"])


def _few(names: list[str]) -> str:
    """Write a list that has to fit into a cell."""
    return ", ".join(names if len(names) <= FEW else [*names[: FEW - 1], f"{len(names) - FEW + 1} more"])


def _read_grid(given: Any) -> dict[str, list[Any]]:
    """Read ``fast=5,8`` and ``ema-cross.fast=5,8``; values of the same param join."""
    grid: dict[str, Any] = {}
    for each in given:
        name, sign, values = each.partition("=")
        if not sign:
            raise ConfigurationError(f"--grid: expected PARAM=VALUE,VALUE, found {each!r}")
        strategy, dot, param = name.rpartition(".")
        place = grid.setdefault(strategy, {}) if dot else grid
        if not isinstance(place, dict) or isinstance(place.get(param), dict):
            raise ConfigurationError(f"--grid {each}: expected a param, found that one of another --grid is a strategy")
        place[param] = place.get(param, []) + _read_values(values)
    return grid


def _read_values(text: str) -> list[Any]:
    try:
        read: list[Any] = json.loads(f"[{text}]")
    except ValueError:
        return text.split(",")
    return read


def _steer(act: Callable[[Operations, int], RunState], run: int, *, as_json: bool) -> None:
    with operating() as operations:
        state = act(operations, run)
        document = describe_run(*load(operations, run)) if as_json else None
    if document is not None:
        print_json(document)
    else:
        say(f"Run {run} is {state}.")


def _exit(progress: RunProgress) -> None:
    """End with 1 unless everything that the run was started for is done: a watcher's exit code goes into scripts."""
    if progress.state is not RunState.COMPLETE or progress.units[UnitState.FAILED]:
        raise typer.Exit(1)


cli.command("compare")(compare)
cli.command("report")(report)
cli.command("delete")(delete_runs)
