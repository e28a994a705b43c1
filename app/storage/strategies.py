"""The strategy catalogue: definitions, their revisions, and the version that tells readers to look again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.domain.jobs import JobKey
from app.domain.strategies import (
    Limits,
    RegisteredStrategy,
    StrategyDefinition,
    StrategyStatus,
    Subscription,
    Trading,
)
from app.errors import UnknownStrategyError, did_you_mean
from app.storage.schema import catalogue, strategies, strategy_revisions
from app.storage.verifications import Verification


@dataclass(frozen=True, slots=True)
class Revision:
    """What one revision of a strategy computes, and the limits in force now."""

    key: JobKey
    name: str
    implementation: str
    params: dict[str, Any]
    limits: Limits
    fingerprint: str | None = None
    """What its code was when it was added; None when nobody took it."""
    trading: Trading | None = None
    """How its signals become positions now; None when they do not."""


@dataclass(frozen=True, slots=True)
class Retired:
    """Revisions that get no new jobs."""

    replaced: frozenset[JobKey] = frozenset()
    """By a newer revision; jobs of theirs may still be under way."""
    unloaded: frozenset[JobKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What `save_definition` did."""

    strategy: RegisteredStrategy
    was: str
    """``added``, ``changed`` or ``unchanged``."""
    verification: Verification | None = None
    """What the gate said, if it was asked."""


def load_version(connection: Connection) -> int:
    """Return the version of the catalogue; it grows with every change of any strategy."""
    return int(connection.execute(select(catalogue.c.version)).scalar_one())


def load_strategies(connection: Connection, status: StrategyStatus | None = None) -> list[RegisteredStrategy]:
    """Load the strategies of one status, or all, ordered by id."""
    query = select(strategies).order_by(strategies.c.id)
    if status is not None:
        query = query.where(strategies.c.status == status.value)
    return [_read(row) for row in connection.execute(query)]


def load_strategy(connection: Connection, name: str) -> RegisteredStrategy:
    """Load one strategy by name.

    Raises:
        UnknownStrategyError: no strategy is called so.
    """
    row = connection.execute(select(strategies).where(strategies.c.name == name)).one_or_none()
    if row is None:
        known = connection.execute(select(strategies.c.name)).scalars()
        raise UnknownStrategyError(f"no strategy {name!r}: {did_you_mean(name, known)}")
    return _read(row)


def load_provenance(connection: Connection, name: str) -> dict[str, str]:
    """Return where each value of a definition came from: ``base``, ``strategy`` or ``default``."""
    return dict(connection.execute(select(strategies.c.provenance).where(strategies.c.name == name)).scalar_one())


def load_revisions(connection: Connection, keys: Sequence[JobKey]) -> dict[JobKey, Revision]:
    """Load what the given revisions compute; those that do not exist are absent from the answer."""
    revisions = strategy_revisions
    query = (
        select(revisions, strategies.c.name, strategies.c.limits, strategies.c.trading)
        .join(strategies, strategies.c.id == revisions.c.strategy_id)
        .where(revisions.c.strategy_id.in_({key.strategy_id for key in keys}))
    )
    found = {}
    for row in connection.execute(query):
        key = JobKey(row.strategy_id, row.revision)
        limits, trading = Limits(**row.limits), _read_trading(row)
        found[key] = Revision(key, row.name, row.implementation, row.params, limits, row.fingerprint, trading)
    return {key: found[key] for key in keys if key in found}


def load_retired(connection: Connection, keys: Collection[JobKey]) -> Retired:
    """Load which of some revisions get no new jobs: a newer one has replaced them, or their strategy is unloaded."""
    query = select(strategies.c.id, strategies.c.revision, strategies.c.status)
    rows = connection.execute(query.where(strategies.c.id.in_({key.strategy_id for key in keys}))).all()
    current = {JobKey(row.id, row.revision) for row in rows}
    unloaded = {row.id for row in rows if row.status == StrategyStatus.UNLOADED}
    return Retired(
        frozenset(key for key in keys if key not in current),
        frozenset(key for key in keys if key.strategy_id in unloaded),
    )


def load_fingerprint(connection: Connection, name: str) -> str | None:
    """Return the fingerprint of a strategy's current revision; None when nobody took it, or there is no strategy."""
    return connection.execute(select(strategies.c.fingerprint).where(strategies.c.name == name)).scalar()


def save_definition(
    connection: Connection,
    definition: StrategyDefinition,
    provenance: Mapping[str, str] | None = None,
    fingerprint: str | None = None,
) -> Change:
    """Add a strategy or change the one of the same name. Idempotent; runs in the caller's transaction.

    Another implementation, other params or another fingerprint make a new revision; anything else changes in place,
    trading too: it changes what is done with signals and not what they say.
    A status that the definition does not state stays what an operator made it.
    """
    _lock(connection)
    values = {**_columns(definition), "provenance": dict(provenance or {})}
    trades = definition.trading is not None and definition.trading.enabled
    if fingerprint is not None:
        values["fingerprint"] = fingerprint
    row = connection.execute(select(strategies).where(strategies.c.name == definition.name).with_for_update())
    known = row.one_or_none()
    if known is None:
        return Change(_add(connection, {**values, **_beginning(trades=trades, traded=False)}), "added")
    if (provenance or {}).get("status") == "default":
        values["status"] = known.status
    if all(getattr(known, name) == value for name, value in values.items()):
        return Change(_read(known), "unchanged")
    revision = known.revision + _computes_otherwise(known, values)
    values |= _beginning(trades=trades, traded=_trades(known))
    changed = connection.execute(
        update(strategies)
        .where(strategies.c.id == known.id)
        .values(**values, revision=revision, updated_at=func.clock_timestamp())
        .returning(strategies)
    ).one()
    _save_revision(connection, changed)
    bump_version(connection)
    return Change(_read(changed), "changed")


def set_status(connection: Connection, name: str, status: StrategyStatus) -> RegisteredStrategy:
    """Pause, resume or unload a strategy. Idempotent; takes effect with the next candle.

    Raises:
        UnknownStrategyError: no strategy is called so.
    """
    _lock(connection)
    known = load_strategy(connection, name)
    if known.definition.status is status:
        return known
    changed = connection.execute(
        update(strategies)
        .where(strategies.c.name == name)
        .values(status=status.value, updated_at=func.clock_timestamp())
        .returning(strategies)
    ).one()
    bump_version(connection)
    return _read(changed)


def _beginning(*, trades: bool, traded: bool) -> dict[str, Any]:
    """Note since when signals become positions: what was said before is history."""
    return {"trading_since": func.clock_timestamp()} if trades and not traded else {}


def _trades(row: Row[Any]) -> bool:
    trading = _read_trading(row)
    return trading is not None and trading.enabled


def _read_trading(row: Row[Any]) -> Trading | None:
    return None if row.trading is None else Trading(**row.trading)


def _add(connection: Connection, values: dict[str, Any]) -> RegisteredStrategy:
    row = connection.execute(insert(strategies).values(**values).returning(strategies)).one()
    _save_revision(connection, row)
    bump_version(connection)
    return _read(row)


def _computes_otherwise(known: Row[Any], values: Mapping[str, Any]) -> bool:
    if (known.implementation, known.params) != (values["implementation"], values["params"]):
        return True
    # a revision whose fingerprint nobody took yet gets it now
    return known.fingerprint is not None and known.fingerprint != values.get("fingerprint", known.fingerprint)


def _save_revision(connection: Connection, row: Row[Any]) -> None:
    values = {
        "strategy_id": row.id,
        "revision": row.revision,
        "implementation": row.implementation,
        "params": row.params,
        "fingerprint": row.fingerprint,
    }
    known = upsert(strategy_revisions).values(**values)
    first = func.coalesce(strategy_revisions.c.fingerprint, known.excluded.fingerprint)
    key = ["strategy_id", "revision"]
    connection.execute(known.on_conflict_do_update(index_elements=key, set_={"fingerprint": first}))


def _lock(connection: Connection) -> None:
    # one change of the catalogue at a time: two operators may add the same name
    connection.execute(select(catalogue.c.version).with_for_update())


def bump_version(connection: Connection) -> None:
    """Tell every reader of the catalogue to look again."""
    connection.execute(update(catalogue).values(version=catalogue.c.version + 1))


def _columns(definition: StrategyDefinition) -> dict[str, Any]:
    dumped = definition.model_dump(mode="json")
    subscription = dumped.pop("subscription")
    return {**dumped, "symbols": subscription["symbols"], "timeframes": subscription["timeframes"]}


def _read(row: Row[Any]) -> RegisteredStrategy:
    definition = StrategyDefinition(
        name=row.name,
        implementation=row.implementation,
        params=row.params,
        subscription=Subscription(symbols=tuple(row.symbols), timeframes=tuple(row.timeframes)),
        priority=row.priority,
        category=row.category,
        weight=row.weight,
        limits=Limits(**row.limits),
        trading=_read_trading(row),
        status=row.status,
    )
    return RegisteredStrategy(id=row.id, revision=row.revision, definition=definition)
