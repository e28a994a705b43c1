"""The `candlefleet` command: its sub-commands, and how errors become exit codes.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli import (
    api,
    bench,
    database,
    demo,
    dispatches,
    doctor,
    drill,
    fleet,
    jobs,
    ledger,
    maintenance,
    positions,
    queues,
    replay,
    runs,
    settings,
    strategies,
    stress,
    trace,
    workers,
)
from app.cli.output import say
from app.errors import CandlefleetError, ConfigurationError, UnknownStrategyError

cli = typer.Typer(
    name="candlefleet",
    help="Run many trading strategies over market candles on a fleet of workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def main(
    home: Annotated[
        Path | None,
        typer.Option(help="Folder of the embedded servers (CANDLEFLEET_HOME).", show_default=".candlefleet"),
    ] = None,
) -> None:
    """Run many trading strategies over market candles on a fleet of workers."""
    if home is not None:
        os.environ["CANDLEFLEET_HOME"] = str(home)


cli.command("demo")(demo.demo)
cli.command("up")(demo.up)
cli.command("producer")(fleet.producer)
cli.command("worker")(fleet.worker)
cli.command("flower")(fleet.flower)
cli.command("api")(api.api)
cli.command("maintenance")(maintenance.maintenance)
cli.command("settings")(settings.settings)
cli.command("status")(ledger.status)
cli.command("outcomes")(ledger.outcomes)
cli.command("decisions")(ledger.decisions)
cli.command("positions")(positions.positions)
cli.command("events")(positions.events)
cli.command("actions")(positions.actions)
cli.command("trace")(trace.trace)
cli.command("replay")(replay.replay)
cli.command("doctor")(doctor.doctor)
cli.command("drill")(drill.drill)
cli.command("bench")(bench.bench)
cli.command("stress")(stress.stress)
cli.add_typer(dispatches.cli, name="dispatches")
cli.add_typer(jobs.cli, name="jobs")
cli.add_typer(queues.cli, name="queues")
cli.add_typer(strategies.cli, name="strategies")
cli.add_typer(runs.cli, name="runs")
cli.add_typer(workers.cli, name="workers")
cli.add_typer(database.cli, name="db")


def run() -> None:
    """Run the command line; expected errors are one line and an exit code."""
    try:
        cli()
    except (ConfigurationError, UnknownStrategyError) as error:
        _complain(error)
        sys.exit(2)
    except CandlefleetError as error:
        _complain(error)
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complain(error: Exception) -> None:
    say(f"candlefleet: {error}", style="red")


if __name__ == "__main__":
    run()
