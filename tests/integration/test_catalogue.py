"""The strategy catalogue: what makes a revision, what stays an operator's, and the version that readers watch."""

from __future__ import annotations

from functools import partial
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine

from app.domain.jobs import JobKey
from app.domain.strategies import Limits, Priority, StrategyDefinition, StrategyStatus
from app.errors import UnknownStrategyError
from app.storage.strategies import (
    Change,
    load_revisions,
    load_strategies,
    load_strategy,
    load_version,
    save_definition,
    set_status,
)
from tests.building import definition
from tests.integration.ledger import rows, together

FROM_FILE = {"status": "default", "params.fast": "strategy"}


def save(engine: Engine, what: StrategyDefinition, provenance: dict[str, str] | None = None) -> Change:
    with engine.begin() as connection:
        return save_definition(connection, what, provenance)


def version(engine: Engine) -> int:
    with engine.connect() as connection:
        return load_version(connection)


def full(**changes: Any) -> StrategyDefinition:
    values: dict[str, Any] = {
        "symbols": ["BTC-*", "ETH-USD"],
        "timeframes": ["1h", "4h"],
        "params": {"fast": 5, "slow": 21},
        "priority": Priority.HIGH,
        "weight": 2.5,
        "limits": Limits(timeout_ms=1234, retries=5, memory_mb=64),
    }
    return definition("full", **{**values, **changes})


def test_definition_comes_back_as_it_was_saved(engine: Engine) -> None:
    change = save(engine, full(), FROM_FILE)
    assert (change.was, change.strategy.revision, change.strategy.definition) == ("added", 1, full())
    with engine.connect() as connection:
        assert load_strategy(connection, "full") == change.strategy


def test_same_definition_again_changes_nothing(engine: Engine) -> None:
    save(engine, full(), FROM_FILE)
    before = (version(engine), rows(engine, "SELECT * FROM strategies"))
    change = save(engine, full(), FROM_FILE)
    assert (change.was, change.strategy.revision) == ("unchanged", 1)
    assert (version(engine), rows(engine, "SELECT * FROM strategies")) == before


@pytest.mark.parametrize(
    ("changes", "revision"),
    [
        ({"params": {"fast": 6, "slow": 21}}, 2),
        ({"params": {}}, 2),
        ({"implementation": "macd"}, 2),
        ({"symbols": ["BTC-*"]}, 1),
        ({"timeframes": ["*"]}, 1),
        ({"priority": Priority.LOW}, 1),
        ({"weight": 3.0}, 1),
        ({"limits": Limits(timeout_ms=1)}, 1),
        ({"status": StrategyStatus.PAUSED}, 1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_only_what_it_computes_makes_a_revision(engine: Engine, changes: dict[str, Any], revision: int) -> None:
    save(engine, full())
    seen = version(engine)
    change = save(engine, full(**changes))
    assert (change.was, change.strategy.revision) == ("changed", revision)
    assert change.strategy.definition == full(**changes)
    assert version(engine) == seen + 1  # readers must look again in any case
    assert rows(engine, "SELECT count(*) FROM strategy_revisions") == [(revision,)]


def test_every_revision_keeps_what_it_computed(engine: Engine) -> None:
    strategy_id = save(engine, full()).strategy.id
    save(engine, full(params={"fast": 8, "slow": 21}, limits=Limits(timeout_ms=99)))
    save(engine, full(implementation="macd", params={}))
    keys = [JobKey(strategy_id, number) for number in (3, 1, 2)]
    with engine.connect() as connection:
        found = load_revisions(connection, [*keys, JobKey(strategy_id, 4), JobKey(strategy_id + 1, 1)])
    assert list(found) == keys
    computed = [(found[key].implementation, found[key].params) for key in sorted(keys)]
    assert computed == [("ema_cross", {"fast": 5, "slow": 21}), ("ema_cross", {"fast": 8, "slow": 21}), ("macd", {})]
    assert {each.limits for each in found.values()} == {full().limits}  # the limits in force now, for all of them


@pytest.mark.parametrize("status", [StrategyStatus.PAUSED, StrategyStatus.UNLOADED])
def test_file_that_states_no_status_leaves_the_operators(engine: Engine, status: StrategyStatus) -> None:
    save(engine, full(), FROM_FILE)
    with engine.begin() as connection:
        set_status(connection, "full", status)
    assert save(engine, full(), FROM_FILE).strategy.definition.status is status
    changed = save(engine, full(weight=9.0), FROM_FILE).strategy.definition
    assert (changed.status, changed.weight) == (status, 9.0)
    stated = save(engine, full(weight=9.0), {**FROM_FILE, "status": "strategy"}).strategy.definition
    assert stated.status is StrategyStatus.ACTIVE


def test_status_bumps_the_version_once(engine: Engine) -> None:
    save(engine, full())
    seen = version(engine)
    for _ in range(3):
        with engine.begin() as connection:
            assert set_status(connection, "full", StrategyStatus.PAUSED).definition.status is StrategyStatus.PAUSED
    assert version(engine) == seen + 1
    with engine.connect() as connection:
        assert load_strategies(connection, StrategyStatus.ACTIVE) == []
        assert [s.definition.name for s in load_strategies(connection, StrategyStatus.PAUSED)] == ["full"]


def test_unknown_name_says_what_was_meant(engine: Engine) -> None:
    save(engine, definition("ema-cross"))
    with engine.connect() as connection, pytest.raises(UnknownStrategyError, match="did you mean 'ema-cross'"):
        load_strategy(connection, "ema-crosss")


def test_transaction_that_fails_leaves_no_half_of_a_file(engine: Engine) -> None:
    seen = version(engine)
    with engine.connect() as connection:
        save_definition(connection, definition("one"))
        connection.rollback()
    assert (version(engine), rows(engine, "SELECT * FROM strategies")) == (seen, [])


def test_two_operators_at_once_lose_no_change(engine: Engine) -> None:
    save(engine, full())
    seen = version(engine)
    for number in range(8):
        gate = Barrier(2)

        def change(fast: int, slow: int = 30 + number, gate: Barrier = gate) -> Change:
            gate.wait(timeout=10)
            return save(engine, full(params={"fast": fast, "slow": slow}))

        together(partial(change, 2), partial(change, 3))
    assert version(engine) == seen + 16
    assert rows(engine, "SELECT revision FROM strategies") == [(17,)]
    assert rows(engine, "SELECT count(*) FROM strategy_revisions") == [(17,)]


def test_two_operators_that_add_the_same_name_at_once(engine: Engine) -> None:
    for number in range(4):
        gate = Barrier(2)

        def add(gate: Barrier = gate, name: str = f"new-{number}") -> Change:
            gate.wait(timeout=10)
            return save(engine, definition(name))

        assert sorted(change.was for change in together(add, add)) == ["added", "unchanged"]
