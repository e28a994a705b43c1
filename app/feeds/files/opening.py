"""Which kind of table a file is."""

from __future__ import annotations

from app.errors import FeedError
from app.feeds.files.csv_table import CsvTable
from app.feeds.files.discovery import CandleFile
from app.feeds.files.parquet_table import ParquetTable
from app.feeds.files.table import Table

_PARQUET_MAGIC = b"PAR1"
_PARQUET_SUFFIXES = (".parquet", ".pq")


def open_table(file: CandleFile) -> Table:
    """Open a file as Parquet when its name or its first bytes say so, else as CSV.

    Raises:
        FeedError: the file cannot be opened or lacks what every row needs; names file, line and what was expected.
    """
    if file.path.name.lower().endswith(_PARQUET_SUFFIXES) or _read_start(file) == _PARQUET_MAGIC:
        return ParquetTable(file)
    return CsvTable(file)


def _read_start(file: CandleFile) -> bytes:
    try:
        with file.path.open("rb") as raw:
            return raw.read(len(_PARQUET_MAGIC))
    except OSError as error:
        raise FeedError(f"{file.path}: expected a readable file, found: {error}") from error
