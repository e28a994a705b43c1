"""`candlefleet doctor`: whether a deployment is well, and what to do where it is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from app.cli.output import Json, err, out, print_json
from app.cli.session import settings_with_logging
from app.deployment import Deployment
from app.errors import ConfigurationError, StorageUnavailableError
from app.operations import Operations
from app.operations_doctor import Check, State, examine, is_well
from app.settings import Settings
from app.storage.dead_letters import list_dead_letters

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}

#: Characters of a dead letter's body printed to a person; --json has all that was kept.
SHOWN = 300


def doctor(
    letters: Annotated[int, typer.Option(min=0, max=10_000, help="Also list so many dead letters.")] = 0,
    as_json: Json = False,
) -> None:
    """Check settings, servers, nodes, queues and ledger; exit code 1 when something is a problem."""
    checks, kept = _examine(letters)
    if as_json:
        print_json({"is_well": is_well(checks), "checks": [asdict(check) for check in checks], "letters": kept})
    else:
        out.print(_table(checks))
        _print_letters(kept, wanted=letters)
    raise typer.Exit(0 if is_well(checks) else 1)


def _examine(letters: int) -> tuple[list[Check], list[dict[str, Any]]]:
    try:
        settings = settings_with_logging()
        settings_are = Check("settings", State.OK, "valid")
        with Deployment(settings) as deployment:
            checks = [settings_are, *examine(deployment.settings)]
            return checks, _load_letters(deployment.settings, letters) if letters else []
    except ConfigurationError as error:
        return [Check("settings", State.PROBLEM, str(error), "see 'candlefleet settings'")], []


def _load_letters(settings: Settings, letters: int) -> list[dict[str, Any]]:
    operations = Operations(settings)
    try:
        with operations.reading() as connection:
            return list_dead_letters(connection, letters)
    except (StorageUnavailableError, ConfigurationError):  # a check has said so
        return []
    finally:
        operations.close()


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("check", "state", "found", "what to do"):
        table.add_column(column, overflow="fold", no_wrap=column in ("check", "state"))
    for check in checks:
        table.add_row(check.check, Text(check.state, _STYLES[check.state]), Text(check.found), Text(check.advice))
    return table


def _print_letters(kept: list[dict[str, Any]], *, wanted: int) -> None:
    if wanted and not kept:
        err.print("No dead letters.")
    for letter in kept:
        out.print(f"\n[bold]{letter['received_at']:%Y-%m-%d %H:%M:%S}[/]  {letter['worker']}", highlight=False)
        out.print(Text(letter["reason"], "yellow"))
        out.print(Text(letter["body"][:SHOWN] + ("…" if len(letter["body"]) > SHOWN else ""), "dim"))
