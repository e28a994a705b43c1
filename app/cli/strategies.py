"""`candlefleet strategies`: the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import freqtrade, new
from app.cli.operating import operating
from app.cli.output import Json, build_table, err, out, print_json, print_rows, say
from app.cli.verification import Forced, Reason, decide, document, print_verified, summary, tell_rejected
from app.domain.breakers import BreakerState
from app.domain.strategies import RegisteredStrategy, StrategyStatus
from app.operations_gate import Force
from app.storage import breakers, verifications
from app.storage import strategies as catalogue

cli = typer.Typer(help="Add, list and switch strategies.", no_args_is_help=True)

#: What makes an argument of `verify` a file and not a name.
FILE_SUFFIXES = (".toml", ".yaml", ".yml")

Name = Annotated[str, typer.Argument(help="The strategy's name.")]


cli.command("freqtrade")(freqtrade.freqtrade)
cli.command("new")(new.new)


@cli.command("list")
def list_strategies(
    status: Annotated[StrategyStatus | None, typer.Option(help="Only this status.")] = None, as_json: Json = False
) -> None:
    """List strategies."""
    with operating() as operations, operations.reading() as connection:
        unrest = {row["strategy_id"]: row for row in breakers.list_breakers(connection)}
        rows = [
            {**_row(strategy), **_breaker(unrest.get(strategy.id))}
            for strategy in catalogue.load_strategies(connection, status)
        ]
    columns: tuple[str, ...] = ("id", "name", "implementation", "revision", "status")
    columns += ("breaker", "open_until") if any(row["breaker"] != BreakerState.CLOSED for row in rows) else ()
    columns += ("priority", "category", "weight", "symbols")
    empty = "No strategies: add some with 'candlefleet strategies add FILE'."
    print_rows(rows, (*columns, "timeframes"), as_json=as_json, empty=empty)


@cli.command()
def add(
    file: Annotated[Path, typer.Argument(help="A TOML or YAML definition file.")],
    force: Forced = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Load a definition file: all of it, or nothing and every reason why. What does not pass the gate is rejected."""
    decision = decide(force=force, reason=reason)
    with operating() as operations:
        changes = operations.add_definitions(file, decision, say)
    rows = [
        {**_row(change.strategy), "was": change.was, "verification": document(change.verification)}
        for change in changes
    ]
    columns = ("was", "name", "implementation", "revision", "status", "priority")
    print_rows(rows, columns, as_json=as_json, empty="Nothing in it.")
    made = [change.verification for change in changes if change.verification is not None]
    tell_rejected(made)
    if any(change.strategy.definition.status is StrategyStatus.REJECTED for change in changes):
        raise typer.Exit(1)


@cli.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A strategy, or a definition file.")],
    symbols: Annotated[list[str] | None, typer.Option(help="Stored series to use, with * and ?; repeatable.")] = None,
    force: Forced = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Run the gate: on a strategy, which is rejected if it fails, or on a file that is not added."""
    decision, path = decide(force=force, reason=reason), Path(name)
    with operating() as operations:
        if path.suffix in FILE_SUFFIXES:
            verified = operations.verify_file(path, symbols or (), say)
        else:
            verified = [operations.verify_strategy(name, symbols or (), decision, say)]
    print_verified(verified, as_json=as_json)
    if any(each.verification.verdict != "passed" for each in verified):
        raise typer.Exit(1)


@cli.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one strategy, and where each of its values came from."""
    with operating() as operations, operations.reading() as connection:
        strategy = catalogue.load_strategy(connection, name)
        provenance = catalogue.load_provenance(connection, name)
        fingerprint = catalogue.load_fingerprint(connection, name)
        verification = verifications.load_newest(connection, strategy.id, strategy.revision)
        unrest = {row["strategy_id"]: row for row in breakers.list_breakers(connection)}
        notes = operations.describe_strategy(strategy.definition.implementation)
    breaker = _breaker(unrest.get(strategy.id))
    if as_json:
        gate = {"fingerprint": fingerprint, "verification": document(verification)}
        print_json({**_row(strategy), **breaker, "notes": notes, "provenance": provenance, **gate})
        return
    columns = ("id", "name", "revision", "status", *(breaker if strategy.id in unrest else ()))
    out.print(build_table([{**_row(strategy), **breaker}], columns))
    out.print(summary(verification), markup=False, highlight=False, soft_wrap=True)
    values = _flat(strategy.definition.model_dump(mode="json"))
    rows = [{"value": key, "is": str(value), "from": provenance.get(key, "-")} for key, value in values.items()]
    out.print(build_table(rows, ("value", "is", "from")))
    for note in notes:
        say(f"note: {note}", style="yellow")


@cli.command()
def pause(name: Name) -> None:
    """Stop giving a strategy jobs, from the next candle on."""
    _switch(name, StrategyStatus.PAUSED)


@cli.command()
def resume(name: Name, force: Forced = False, reason: Reason = "") -> None:
    """Give a strategy jobs again, from the next candle on: its breaker closes and its crashes are forgotten."""
    _switch(name, StrategyStatus.ACTIVE, decide(force=force, reason=reason))


@cli.command()
def unload(name: Name) -> None:
    """Take a strategy out of service; its definition and outcomes stay."""
    _switch(name, StrategyStatus.UNLOADED)


def _switch(name: str, status: StrategyStatus, force: Force | None = None) -> None:
    with operating() as operations:
        strategy = operations.set_status(name, status, force)
    err.print(f"{strategy.definition.name} is {strategy.definition.status}.")


def _row(strategy: RegisteredStrategy) -> dict[str, Any]:
    dumped = strategy.definition.model_dump(mode="json")
    subscription = dumped.pop("subscription")
    return {"id": strategy.id, "revision": strategy.revision, **dumped, **subscription}


def _breaker(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"breaker": BreakerState.CLOSED.value, "open_until": None, "failures": 0, "trips": 0, "crashes": 0}
    return {"breaker": row["state"], **{name: row[name] for name in ("open_until", "failures", "trips", "crashes")}}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            # symbols and timeframes stand at the top of a definition file
            flat.update(_flat(value, "" if key == "subscription" else f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
