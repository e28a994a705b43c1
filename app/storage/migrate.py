"""Migrations: bring a database to the newest schema, and tell whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, text

from app.domain.base import Value
from app.errors import ConfigurationError
from app.storage.engine import translated
from app.storage.partitions import ensure_partitions
from app.storage.schema import PARTITION_PREFIX

ROOT = Path(__file__).resolve().parents[2]

#: Advisory lock that keeps two migrating processes apart; any constant of our own does.
LOCK = 0x63616E646C65


class SchemaState(Value):
    """Which revision a database has, and which it should have."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing is left to migrate."""
        return self.current == self.head


def upgrade(engine: Engine) -> SchemaState:
    """Bring the database to the newest schema. Idempotent, and safe to run from many processes at once.

    Raises:
        StorageUnavailableError: Postgres cannot be reached.
    """
    config = _config()
    with translated(), engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        connection.commit()
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            with connection.begin():
                ensure_partitions(connection)
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            connection.commit()
    return schema_state(engine)


def schema_state(engine: Engine) -> SchemaState:
    """Read which revision the database has.

    Raises:
        StorageUnavailableError: Postgres cannot be reached.
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with translated(), engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return SchemaState(current=current, head=head or "")


def require_current(engine: Engine) -> None:
    """Refuse to work on a database whose schema is not the newest.

    Raises:
        ConfigurationError: the schema is missing, older or newer.
    """
    state = schema_state(engine)
    if not state.is_current:
        found = state.current or "an empty database"
        raise ConfigurationError(f"expected schema {state.head}, found {found}: run 'candlefleet db upgrade'")


def migrate_on(connection: Connection, metadata: MetaData) -> None:
    """Run Alembic on an open connection; called by Alembic's env.py."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=lambda name, kind, _parents: not is_partition(name, kind),
    )
    with context.begin_transaction():
        context.run_migrations()


def is_partition(name: str | None, kind: str) -> bool:
    """Tell whether a database object is a partition, which no migration declares."""
    return kind == "table" and (name or "").startswith(PARTITION_PREFIX)


def _config() -> Config:
    path = ROOT / "alembic.ini"
    if not path.exists():
        raise ConfigurationError(f"expected the migrations beside the package, found no {path}: run from a checkout")
    return Config(path)
