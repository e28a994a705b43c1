"""`candlefleet db`: the schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from sqlalchemy import Engine

from app.cli.output import Json, out, print_json
from app.cli.session import settings_with_logging
from app.deployment import Deployment
from app.storage import migrate
from app.storage.engine import open_engine

cli = typer.Typer(help="Migrate the database, or tell whether it is up to date.", no_args_is_help=True)


@cli.command()
def upgrade() -> None:
    """Bring the database to the newest schema. Safe to run at any time, from many machines."""
    with _engine("candlefleet db upgrade") as engine:
        state = migrate.upgrade(engine)
    out.print(f"The schema is at revision {state.current}.")


@cli.command()
def check(as_json: Json = False) -> None:
    """Tell whether the database has the newest schema; exit code 1 if not."""
    with _engine("candlefleet db check") as engine:
        state = migrate.schema_state(engine)
    if as_json:
        print_json({**state.model_dump(), "is_current": state.is_current})
    elif state.is_current:
        out.print(f"The schema is at revision {state.current}, the newest.")
    else:
        found = f"at revision {state.current}" if state.current else "empty"
        out.print(f"The database is {found}, the newest is {state.head}: run 'candlefleet db upgrade'.")
    raise typer.Exit(0 if state.is_current else 1)


@contextmanager
def _engine(name: str) -> Iterator[Engine]:
    with (
        Deployment(settings_with_logging()) as deployment,
        open_engine(deployment.settings.database_dsn, name=name) as engine,
    ):
        yield engine
