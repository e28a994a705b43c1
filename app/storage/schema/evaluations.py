"""Evaluate runs: slices of markets, what strategies say of them, and what is selected."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, PrimaryKeyConstraint, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from app.domain.runs import SliceState
from app.storage.schema.columns import counter, metadata, moment, one_of, required

#: The queue of an evaluate run: markets that a slot claims and records at once, for some of the run's variants. Market
#: and variant make the number of a unit: market times the run's variants plus variant.
slices = Table(
    "slices",
    metadata,
    required("run_id", Integer()),
    required("number", Integer()),
    required("first_market", Integer()),
    required("symbols", ARRAY(Text)),
    required("variants", ARRAY(Integer)),
    Column("state", Text, nullable=False, server_default=text(f"'{SliceState.PENDING}'")),
    counter("attempts", SmallInteger()),
    Column("claim", BigInteger),
    Column("ticket", Integer),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    Column("worker", Text),
    Column("elapsed_ms", Double),
    Column("cpu_ms", Double),
    Column("memory_mb", Integer),
    PrimaryKeyConstraint("run_id", "number"),
    one_of("state", [word.value for word in SliceState]),
)
Index("ix_slices_pending", slices.c.run_id, slices.c.number, postgresql_where=text(f"state = '{SliceState.PENDING}'"))

#: What a variant says of each market of a slice, in the slice's order; NaN where nothing is stated.
evaluations = Table(
    "evaluations",
    metadata,
    required("run_id", Integer()),
    required("slice", Integer()),
    required("variant", Integer()),
    required("status", ARRAY(SmallInteger)),
    required("opened_ms", ARRAY(BigInteger)),
    required("action", ARRAY(SmallInteger)),
    required("strength", ARRAY(Double)),
    required("edge", ARRAY(Double)),
    required("price", ARRAY(Double)),
    required("stop", ARRAY(Double)),
    required("target", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "slice", "variant"),
)

#: Why units of an evaluate run have no signal.
evaluation_errors = Table(
    "evaluation_errors",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("attempts", SmallInteger()),
    required("error_class", Text()),
    required("error", Text()),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: The positions that an evaluate run selected, best edge first.
selected = Table(
    "selected",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("rank", Integer()),
    required("stop", Double()),
    required("target", Double()),
    required("size_percent", Double()),
    required("risk_percent", Double()),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: What it did not select, and why; the detail is left out where the reason and the unit's own values say it all.
rejected = Table(
    "rejected",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("reason", Text()),
    Column("detail", Text),
    PrimaryKeyConstraint("run_id", "unit"),
)
