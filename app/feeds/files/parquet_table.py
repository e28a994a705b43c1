"""Parquet files, read batch by batch; columns may be numbers, text, or timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import FeedError
from app.feeds.files.columns import Columns, build_columns, describe_missing, locate_fields
from app.feeds.files.discovery import CandleFile
from app.feeds.files.faults import Faults, FloatArray, IntArray, Reason
from app.feeds.files.rows import require_series
from app.feeds.files.table import Block
from app.feeds.files.values import parse_numbers, parse_times, to_microseconds

#: Bytes read ahead of each column: pages are decoded as they are needed, not a whole row group at once.
_BUFFER_BYTES = 65_536


class ParquetTable:
    """A Parquet file whose columns are understood.

    Raises:
        FeedError: the file is no Parquet file or lacks a needed column.
    """

    def __init__(self, file: CandleFile) -> None:
        self._file = file
        try:
            with self._open() as parquet:
                self._names: list[str] = parquet.schema_arrow.names
                self._types: list[Any] = parquet.schema_arrow.types
        except (OSError, pa.ArrowException) as error:
            raise FeedError(f"{file.path}: expected a Parquet file, found: {error}") from error
        self._columns = self._understand()

    @property
    def file(self) -> CandleFile:
        """The file that is read."""
        return self._file

    def blocks(self, block_rows: int, *, times_only: bool = False) -> Iterator[Block]:
        """Read the rows; see Table."""
        done = 0
        try:
            with self._open() as parquet:
                for batch in parquet.iter_batches(batch_size=block_rows, columns=self._needed(times_only)):
                    yield self._build_block(batch, times_only)
                    done += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise FeedError(f"{self._file.path}, row {done + 1}: expected another row, found: {error}") from error

    def _open(self) -> Any:
        return pq.ParquetFile(self._file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def _understand(self) -> Columns:
        fields = locate_fields(self._names)
        columns = build_columns(fields)
        if columns is None:
            raise FeedError(f"{self._file.path}: {describe_missing(fields)}; found {', '.join(self._names)}")
        require_series(self._file, columns)
        self._check_types(columns)
        return columns

    def _check_types(self, columns: Columns) -> None:
        for position in (columns.timestamp, *columns.values):
            kind = self._types[position]
            is_time = position == columns.timestamp and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))
            if not (is_time or _is_number(kind) or _is_text(kind)):
                where = f"{self._file.path}, column {self._names[position]}"
                raise FeedError(f"{where}: expected numbers or text (or a timestamp for the time), found {kind}")

    def _needed(self, times_only: bool) -> list[str]:
        columns = self._columns
        positions = [columns.timestamp, columns.symbol, columns.timeframe, *(() if times_only else columns.values)]
        return [self._names[position] for position in positions if position is not None]

    def _build_block(self, batch: Any, times_only: bool) -> Block:
        faults = Faults(batch.num_rows)
        columns = self._columns
        wanted = () if times_only else columns.values
        return Block(
            open_us=_read_times(self._column(batch, columns.timestamp), faults),
            values=tuple(_read_numbers(self._column(batch, position), faults) for position in wanted),
            symbols=self._words(batch, columns.symbol),
            timeframes=self._words(batch, columns.timeframe),
            faults=faults,
        )

    def _column(self, batch: Any, position: int) -> Any:
        return batch.column(self._names[position])

    def _words(self, batch: Any, position: int | None) -> Sequence[str | None] | None:
        return None if position is None else self._column(batch, position).cast(pa.string()).to_pylist()


def _read_times(column: Any, faults: Faults) -> IntArray:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return _fill(moments.cast(pa.int64()), faults)
    if pa.types.is_integer(kind):
        return to_microseconds(_fill(column.cast(pa.int64()), faults))
    # A fraction must not be cut off: as text it is read like one in a CSV file.
    return parse_times((column.cast(pa.string()) if _is_number(kind) else column).to_pylist(), faults)


def _read_numbers(column: Any, faults: Faults) -> FloatArray:
    if _is_text(column.type):
        return parse_numbers(column.to_pylist(), faults)
    missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    faults.blame(missing, Reason.MISSING_CELL)
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def _fill(column: Any, faults: Faults) -> IntArray:
    missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    faults.blame(missing, Reason.MISSING_CELL)
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
