"""The `candlefleet` command: its sub-commands, and how errors become exit codes.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from app.cli.lazy import Entry, LazyGroup
from app.cli.output import say
from app.errors import CandlefleetError, ConfigurationError, UnknownStrategyError


class Commands(LazyGroup):
    """Every command, in the order of the help."""

    entries: ClassVar = {
        "demo": Entry(
            "app.cli.demo:demo",
            "Run the whole flow on this machine, with servers of its own, and show what came of it.",
        ),
        "up": Entry(
            "app.cli.demo:up", "Keep a whole deployment running on this machine, Flower and API included, until Ctrl-C."
        ),
        "producer": Entry("app.cli.producer:producer", "Turn the candles of a feed into jobs, until it ends."),
        "worker": Entry("app.cli.worker:worker", "Execute jobs: one worker node."),
        "flower": Entry("app.cli.flower:flower", "Show the fleet in a browser; a password is asked for."),
        "api": Entry("app.cli.api:api", "Serve the HTTP API; its documentation is at /api/docs."),
        "maintenance": Entry(
            "app.cli.maintenance:maintenance",
            "Send lost jobs again, close what is due, recover what stands still. "
            "Run two: one takes over from the other.",
        ),
        "settings": Entry(
            "app.cli.settings:settings", "Show every setting, its meaning and the value in force; secrets are masked."
        ),
        "status": Entry("app.cli.ledger:status", "Show queues, nodes, jobs and latency."),
        "outcomes": Entry("app.cli.ledger:outcomes", "List outcomes, newest dispatch first."),
        "decisions": Entry("app.cli.ledger:decisions", "List decisions, newest first."),
        "positions": Entry(
            "app.cli.positions:positions", "List positions, with what is not realised yet at the newest candle."
        ),
        "events": Entry("app.cli.positions:events", "List what happened to positions, newest first."),
        "actions": Entry(
            "app.cli.positions:actions",
            "List order intents, newest first, or follow them; followed, --json prints one document a line.",
        ),
        "trace": Entry(
            "app.cli.trace:trace", "Tell the story of a candle or of one job; exit code 1 when nothing has this id."
        ),
        "replay": Entry(
            "app.cli.replay:replay",
            "Evaluate a stored dispatch again and print every difference from its outcomes; "
            "exit code 1 if there is one.",
        ),
        "doctor": Entry(
            "app.cli.doctor:doctor",
            "Check settings, servers, nodes, queues and ledger; exit code 1 when something is a problem.",
        ),
        "drill": Entry(
            "app.cli.drill:drill", "Inject faults under load and certify that nothing is lost, doubled or different."
        ),
        "bench": Entry(
            "app.cli.bench:bench", "Measure speed: this system, plain Celery and the limit of the machine, in turns."
        ),
        "stress": Entry(
            "app.cli.stress:stress",
            "Evaluate many markets through strategies, select positions, and validate: exit code 1 when a check fails.",
        ),
        "dispatches": Entry("app.cli.dispatches:cli", "List dispatches, look at one, or take some back."),
        "jobs": Entry("app.cli.jobs:cli", "Look at a job, or take jobs back."),
        "queues": Entry("app.cli.queues:cli", "Look at the queues, or empty one."),
        "strategies": Entry("app.cli.strategies:cli", "Add, list and switch strategies."),
        "runs": Entry("app.cli.runs:cli", "Start, watch and steer batch runs."),
        "workers": Entry("app.cli.workers:cli", "List the worker nodes, or change how many slots one has."),
        "db": Entry("app.cli.database:cli", "Migrate the database, or tell whether it is up to date."),
    }


cli = typer.Typer(
    name="candlefleet",
    cls=Commands,
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
