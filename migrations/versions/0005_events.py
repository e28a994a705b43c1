"""Events: how many events of jobs a node sent, left out and lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = ("events_sent", "events_sampled", "events_dropped")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("nodes", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("nodes", name)
