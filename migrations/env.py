"""Alembic's entry point: migrates the database of the settings, or the connection it is handed."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.settings import load_settings
from app.storage.engine import build_engine
from app.storage.migrate import migrate_on
from app.storage.schema import metadata


def _migrate() -> None:
    handed: Connection | None = context.config.attributes.get("connection")
    if handed is not None:
        migrate_on(handed, metadata)
        return
    engine = build_engine(load_settings().database_dsn, name="candlefleet alembic")
    with engine.connect() as connection:
        migrate_on(connection, metadata)
    engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    _migrate()
