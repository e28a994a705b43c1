"""What tables are declared with: their metadata, and the kinds of columns that most have."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, DateTime, MetaData, func, text
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def moment(name: str, *, nullable: bool = False, default: bool = False) -> Column[Any]:
    """Declare an aware moment; with a default that of the statement that inserts."""
    server_default: ColumnElement[object] | None = func.clock_timestamp() if default else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=server_default)


def required(name: str, kind: TypeEngine[Any]) -> Column[Any]:
    """Declare a column that is never NULL."""
    return Column(name, kind, nullable=False)


def one_of(column: str, words: list[str]) -> CheckConstraint:
    """Declare that a column holds one of some words of our own."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def counter(name: str, kind: TypeEngine[Any], start: int = 0) -> Column[Any]:
    """Declare a number that is never NULL and begins at `start`."""
    return Column(name, kind, nullable=False, server_default=text(str(start)))
