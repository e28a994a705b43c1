"""Verifications: what the gate was asked about a strategy and what it said; who enabled one that it rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text, update

from app.domain.strategies import Limits, StrategyDefinition
from app.storage.schema import verifications

#: Every series, for the gate to find some that a strategy would get.
_SERIES = text("SELECT symbol, timeframe, last_open_time FROM series WHERE last_open_time IS NOT NULL ORDER BY 1, 2")


@dataclass(frozen=True, slots=True)
class Verification:
    """One verification."""

    id: str
    strategy: str
    implementation: str
    params: dict[str, Any]
    limits: Limits
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    fingerprint: str
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ran_on: str | None
    verdict: str | None
    """``passed``, ``rejected``, or None: not finished, or the gate failed."""
    report: dict[str, Any] | None
    strategy_id: int | None
    revision: int | None
    forced_at: datetime | None
    forced_by: str | None
    forced_reason: str | None

    @property
    def allows(self) -> bool:
        """Whether the strategy may get jobs."""
        return self.verdict == "passed" or self.forced_at is not None


def save_request(
    connection: Connection, verification_id: str, definition: StrategyDefinition, fingerprint: str
) -> None:
    """Write what is to be verified.

    Args:
        connection: with an open transaction.
        verification_id: new.
        definition: its subscription says which stored candles are used beside generated ones.
        fingerprint: of its code.
    """
    dumped = definition.model_dump(mode="json")
    values = {
        "id": verification_id,
        "strategy": definition.name,
        **{name: dumped[name] for name in ("implementation", "params", "limits")},
        **{name: dumped["subscription"][name] for name in ("symbols", "timeframes")},
        "fingerprint": fingerprint,
    }
    connection.execute(insert(verifications).values(**values))


def claim(connection: Connection, verification_id: str, ran_on: str, *, again: bool = False) -> Verification | None:
    """Take a verification over; None when somebody else has, or it does not exist.

    Args:
        connection: with an open transaction.
        verification_id: of it.
        ran_on: who takes it.
        again: whether one that somebody took and did not finish is taken as well.
    """
    open_to_all = verifications.c.finished_at if again else verifications.c.started_at
    taken = connection.execute(
        update(verifications)
        .where(verifications.c.id == verification_id, open_to_all.is_(None))
        .values(started_at=func.clock_timestamp(), ran_on=ran_on)
        .returning(verifications)
    ).one_or_none()
    return None if taken is None else _read(taken)


def finish(connection: Connection, verification_id: str, verdict: str | None, report: Mapping[str, Any]) -> None:
    """Write the gate's answer. Idempotent: the first one counts.

    Args:
        connection: with an open transaction.
        verification_id: of it.
        verdict: ``passed``, ``rejected``, or None when the gate failed.
        report: its document.
    """
    connection.execute(
        update(verifications)
        .where(verifications.c.id == verification_id, verifications.c.finished_at.is_(None))
        .values(verdict=verdict, report=dict(report), finished_at=func.clock_timestamp())
    )


def attach(connection: Connection, verification_id: str, strategy_id: int, revision: int) -> None:
    """Note which revision a verification is about."""
    connection.execute(
        update(verifications)
        .where(verifications.c.id == verification_id)
        .values(strategy_id=strategy_id, revision=revision)
    )


def force(connection: Connection, verification_id: str, by: str, reason: str) -> None:
    """Note who enables the strategy whatever the gate said, and why."""
    connection.execute(
        update(verifications)
        .where(verifications.c.id == verification_id)
        .values(forced_at=func.clock_timestamp(), forced_by=by, forced_reason=reason)
    )


def load_verifications(connection: Connection, ids: Sequence[str]) -> list[Verification]:
    """Load verifications, in the given order."""
    rows = connection.execute(select(verifications).where(verifications.c.id.in_(ids)))
    found = {row.id: _read(row) for row in rows}
    return [found[verification_id] for verification_id in ids]


def load_newest(connection: Connection, strategy_id: int, revision: int) -> Verification | None:
    """Load the newest finished verification of a revision; None when there is none."""
    row = connection.execute(
        select(verifications)
        .where(verifications.c.strategy_id == strategy_id, verifications.c.revision == revision)
        .where(verifications.c.finished_at.is_not(None))
        .order_by(verifications.c.finished_at.desc(), verifications.c.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else _read(row)


def list_series(connection: Connection) -> list[tuple[str, str, datetime]]:
    """Return symbol, timeframe and newest open time of every series."""
    return [(row.symbol, row.timeframe, row.last_open_time) for row in connection.execute(_SERIES)]


def _read(row: Row[Any]) -> Verification:
    values = {name: getattr(row, name) for name in Verification.__dataclass_fields__}
    values |= {"limits": Limits(**row.limits), "symbols": tuple(row.symbols), "timeframes": tuple(row.timeframes)}
    return Verification(**values)
