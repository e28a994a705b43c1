"""Arrays on their way to Postgres in its own binary form, built by numpy: what a chunk's rows are made of.

psycopg asks every element of a list for its type and writes it alone, which for a few hundred rows of a dozen
columns costs more than Postgres needs to store them.

Source: array_recv in PostgreSQL's src/backend/utils/adt/arrayfuncs.c, and its counterparts for the elements.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

#: Number of dimensions, whether there are NULLs, type of the elements, length, number of the first element.
_HEADER = struct.Struct(">iIIii")
_EMPTY = struct.Struct(">iII")

#: Length of a NULL element, which has no other bytes than this length's own four.
_NULL, LENGTH_BYTES = -1, 4


class Kind(NamedTuple):
    """An element type of Postgres."""

    oid: int
    numpy: np.dtype[np.generic]
    """Its binary form."""


# Source of the numbers: src/include/catalog/pg_type.dat
INT2 = Kind(21, np.dtype(">i2"))
INT4 = Kind(23, np.dtype(">i4"))
INT8 = Kind(20, np.dtype(">i8"))
FLOAT4 = Kind(700, np.dtype(">f4"))
FLOAT8 = Kind(701, np.dtype(">f8"))


class Array(NamedTuple):
    """A one-dimensional array, ready to send as a parameter; its SQL names the type: ``%(ids)s::int[]``."""

    data: bytes


def build_array(kind: Kind, values: Sequence[float | None]) -> Array:
    """Build an array.

    Args:
        kind: type of its elements.
        values: numbers that the type holds, or None for NULL.

    Raises:
        OverflowError: a number is too large for the type.
    """
    if not values:
        return Array(_EMPTY.pack(0, 0, kind.oid))
    has_null = None in values
    elements = np.empty(len(values), [("length", ">i4"), ("value", kind.numpy)])
    elements["length"] = kind.numpy.itemsize
    elements["value"] = [value or 0 for value in values] if has_null else values
    body = _leave_out_nulls(elements, values) if has_null else elements.tobytes()
    return Array(_HEADER.pack(1, has_null, kind.oid, len(values), 1) + body)


def _leave_out_nulls(elements: npt.NDArray[np.void], values: Sequence[float | None]) -> bytes:
    is_null = np.array([value is None for value in values])
    elements["length"][is_null] = _NULL
    octets = elements.view(np.uint8).reshape(len(values), elements.itemsize)
    is_sent = np.ones(octets.shape, bool)
    is_sent[is_null, LENGTH_BYTES:] = False
    return octets[is_sent].tobytes()


class _ArrayDumper(Dumper):
    """Sends an Array as it is; Postgres learns its type from the cast in the statement."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Array) -> Buffer:
        return obj.data


psycopg.adapters.register_dumper(Array, _ArrayDumper)
