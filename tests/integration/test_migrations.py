"""Migrations: they build exactly what is declared, go back and forth, and may run many times at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Row, text

from app import embedded
from app.errors import ConfigurationError
from app.storage.engine import build_engine
from app.storage.migrate import require_current, schema_state, upgrade
from app.storage.schema import PARTITION_PREFIX, metadata
from tests.building import REPOSITORY, environment
from tests.conftest import new_database, settings_on

#: Everything that makes up a schema, one query per kind of thing; partitions are looked at elsewhere.
CATALOG = {
    "tables": """
        SELECT relname, relkind, relpersistence, reloptions, pg_get_partkeydef(oid) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
    """,
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attgenerated, a.attstorage, a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
    """,
    "constraints": """
        SELECT r.relname, n.conname, n.contype, pg_get_constraintdef(n.oid), n.convalidated, n.condeferrable
        FROM pg_constraint n JOIN pg_class r ON r.oid = n.conrelid
        WHERE n.connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "sequences": "SELECT sequencename, data_type::text, start_value, increment_by, cycle, cache_size FROM pg_sequences",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
}


def read_catalog(engine: Engine) -> dict[str, set[tuple[object, ...]]]:
    """Return the whole schema without Alembic's own table and without partitions."""

    def is_ours(row: tuple[object, ...]) -> bool:
        return not str(row[0]).startswith(("alembic_version", PARTITION_PREFIX))

    with engine.connect() as connection:
        found = {kind: [_hashable(row) for row in connection.execute(text(query))] for kind, query in CATALOG.items()}
    return {kind: set(filter(is_ours, rows)) for kind, rows in found.items()}


def _hashable(row: Row[Any]) -> tuple[object, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def alembic_config(connection: Connection) -> Config:
    config = Config(REPOSITORY / "alembic.ini")
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def empty(servers: embedded.Servers) -> Iterator[Engine]:
    """Engine on a database without any table."""
    with new_database(servers) as url:
        engine = build_engine(url, name="tests")
        yield engine
        engine.dispose()


def test_migrated_schema_is_the_declared_one(engine: Engine, empty: Engine) -> None:
    metadata.create_all(empty)
    declared, migrated = read_catalog(empty), read_catalog(engine)
    assert {name for name, *_ in declared["tables"]} >= set(metadata.tables)
    for kind in CATALOG:
        assert migrated[kind] == declared[kind], kind


def test_catalog_comparison_sees_what_it_should(engine: Engine, empty: Engine) -> None:
    # a check that can see no difference would always pass
    metadata.create_all(empty)
    for statement, kind in (
        ("ALTER TABLE candles ALTER COLUMN volume DROP NOT NULL", "columns"),
        ("ALTER TABLE nodes ALTER COLUMN busy SET DEFAULT 1", "columns"),
        ("ALTER TABLE decisions DROP CONSTRAINT ck_decisions_closed_by", "constraints"),
        ("DROP INDEX ix_dispatches_unfinished", "indexes"),
        ("ALTER TABLE dispatches RESET (fillfactor)", "tables"),
        ("CREATE OR REPLACE VIEW unit_trades AS SELECT * FROM unit_trades WHERE run_id > 0", "views"),
    ):
        with empty.begin() as connection:
            connection.execute(text(statement))
        assert read_catalog(empty)[kind] != read_catalog(engine)[kind], statement


def test_trades_of_units_survive_the_way_down_and_up_again(engine: Engine) -> None:
    trades = """
        INSERT INTO unit_trade_columns VALUES
            (7, 0, '{10,50}', '{30,90}', '{1,-1}', '{2,3}', '{10.5,11}', '{11,10}', '{.1,.2}', '{.9,-1}', '{0,3}'),
            (7, 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')
    """
    units = "INSERT INTO units (run_id, number, variant, symbol, candles, state) VALUES (7, {}, 0, 'A', 9, 'succeeded')"
    with engine.begin() as connection:
        connection.execute(text(trades))
        for number in (0, 1):
            connection.execute(text(units.format(number)))

    def read(table: str) -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3"))
            return [tuple(row) for row in rows]

    shown, columns = read("unit_trades"), read("unit_trade_columns")
    assert [row[-1] for row in shown] == ["signal", "trailing"]
    for move, revision in ((command.downgrade, "0009"), (command.upgrade, "head")):
        with engine.connect() as connection:
            move(alembic_config(connection), revision)
        assert read("unit_trades") == shown
    assert read("unit_trade_columns") == columns


def test_way_down_and_up_again(engine: Engine) -> None:
    before = read_catalog(engine)
    with engine.connect() as connection:
        command.downgrade(alembic_config(connection), "base")
        left = connection.execute(text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
        assert {name for name in left.scalars() if not name.startswith("alembic_version")} == set()
    assert schema_state(engine).current is None
    assert upgrade(engine).is_current
    assert read_catalog(engine) == before


def test_upgrade_again_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE catalogue SET version = 41"))
    before = read_catalog(engine)
    assert upgrade(engine).is_current
    assert read_catalog(engine) == before
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM catalogue")).scalars().all() == [41]


def test_two_upgrades_at_once_both_succeed(empty: Engine, servers: embedded.Servers) -> None:
    settings = settings_on(empty.url.render_as_string(hide_password=False), servers.broker_url, "")
    command_line = [sys.executable, "-m", "app.cli.main", "db", "upgrade"]
    running = [
        subprocess.Popen(
            command_line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env=environment(settings),
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    require_current(empty)
    with empty.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM catalogue")).scalar_one() == 1


def test_work_on_an_old_schema_is_refused_with_what_to_do(empty: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"expected schema \w+, found an empty database: run 'candlefleet db"):
        require_current(empty)
