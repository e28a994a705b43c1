"""Rows on their way to Postgres by COPY in its binary form, built by numpy from columns.

psycopg writes value by value, which for the thousands of trades of a unit takes longer than finding them did.

Source: the manual's page on COPY, "Binary Format"; array_recv for columns of arrays, as in `app.storage.arrays`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import Connection as DriverConnection
from psycopg import sql

#: Begin and end of a binary COPY: signature, flags, length of the header's extension; and a tuple of -1 columns.
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)

#: Microseconds from the epoch to Postgres' own, 2000-01-01 UTC.
EPOCH_US = 946_684_800_000_000

_LENGTH = np.dtype(">i4")


class Column(NamedTuple):
    """A column of fixed width: its values in Postgres' binary form."""

    values: npt.NDArray[Any]


def ints(values: Any, size: int = 4) -> Column:
    """Build a column of integers of `size` bytes; one value serves every row."""
    return Column(np.asarray(values, f">i{size}"))


def floats(values: Any) -> Column:
    """Build a column of double precision."""
    return Column(np.asarray(values, ">f8"))


def moments(epoch_ms: npt.NDArray[np.int64]) -> Column:
    """Build a column of timestamptz from epoch milliseconds."""
    return Column((epoch_ms * 1000 - EPOCH_US).astype(">i8"))


def word(text: str) -> Column:
    """Build a column of one text for every row."""
    return Column(np.asarray(text.encode(), f"S{len(text.encode())}"))


def array(kind: int, values: npt.NDArray[Any]) -> Column:
    """Build a column that holds one array for every row.

    Args:
        kind: oid of the elements' type.
        values: of one dimension, already in the type's binary form.
    """
    elements = np.empty(len(values), [("length", _LENGTH), ("value", values.dtype)])
    elements["length"], elements["value"] = values.dtype.itemsize, values
    head = struct.pack(">iIIii", 1, 0, kind, len(values), 1) if len(values) else struct.pack(">iII", 0, 0, kind)
    return Column(np.frombuffer(head + elements.tobytes(), f"V{len(head) + elements.nbytes}")[0])


def build_rows(count: int, columns: Sequence[Column]) -> bytes:
    """Build rows for a binary COPY, without its header and trailer.

    Args:
        count: how many.
        columns: in the order of the COPY; each has one value or `count`.
    """
    fields: list[Any] = [("count", ">i2")]
    for number, column in enumerate(columns):
        fields += [(f"length{number}", _LENGTH), (f"value{number}", column.values.dtype)]
    rows = np.empty(count, fields)
    rows["count"] = len(columns)
    for number, column in enumerate(columns):
        rows[f"length{number}"] = column.values.dtype.itemsize
        rows[f"value{number}"] = column.values
    return rows.tobytes()


def copy_rows(driver: DriverConnection[Any], table: str, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    """Write rows in the caller's transaction.

    Args:
        driver: of psycopg.
        table: its name.
        columns: their names.
        rows: of `build_rows`.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(HEADER + b"".join(rows) + TRAILER)
