"""CSV files, plain or gzipped: the delimiter, the header and the lines. A bad line costs itself and no other."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import TextIO, cast

from app.errors import FeedError
from app.feeds.files.columns import Columns, build_columns, describe_missing, locate_fields
from app.feeds.files.discovery import CandleFile
from app.feeds.files.faults import Faults
from app.feeds.files.rows import require_series
from app.feeds.files.table import Block
from app.feeds.files.values import parse_numbers, parse_times

_DELIMITERS = (",", ";", "\t", "|")
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
#: Longest header line in characters; more is no header but junk without line ends.
_MAX_HEADER = 65_536
#: Length of what a message quotes from a file.
_QUOTED = 100
_READ_ERRORS = (OSError, EOFError, zlib.error)

Cells = list[str]


class CsvTable:
    """A CSV file whose header is understood.

    Raises:
        FeedError: the file cannot be opened, is empty or has no header with the needed columns.
    """

    def __init__(self, file: CandleFile) -> None:
        self._file = file
        self._columns, self._delimiter, self._width = self._read_layout()

    @property
    def file(self) -> CandleFile:
        """The file that is read."""
        return self._file

    def blocks(self, block_rows: int, *, times_only: bool = False) -> Iterator[Block]:
        """Read the rows below the header; see Table."""
        for lines in self._line_blocks(block_rows):
            yield self._build_block(lines, times_only)

    def _read_layout(self) -> tuple[Columns, str, int]:
        try:
            with _open_text(self._file) as text:
                number, header = _read_header(text)
        except _READ_ERRORS as error:
            raise FeedError(f"{self._file.path}: expected a readable CSV file, found: {error}") from error
        if not header:
            raise FeedError(f"{self._file.path}, line 1: expected a header, found an empty file")
        return self._understand(number, header)

    def _understand(self, number: int, header: str) -> tuple[Columns, str, int]:
        layouts = [(delimiter, _split(header, delimiter)) for delimiter in _DELIMITERS]
        delimiter, names = max(layouts, key=lambda layout: len(locate_fields(layout[1])))
        fields = locate_fields(names)
        columns = build_columns(fields)
        if columns is None:
            found = f"found {header.strip()[:_QUOTED]!r}"
            raise FeedError(f"{self._file.path}, line {number}: {describe_missing(fields)}; {found}")
        require_series(self._file, columns)
        return columns, delimiter, len(names)

    def _line_blocks(self, block_rows: int) -> Iterator[list[str]]:
        done = 0
        lines: list[str] = []
        try:
            with _open_text(self._file) as text:
                done, _ = _read_header(text)
                while True:
                    lines = []
                    # extend keeps the lines before a damaged place, which makes the line number below exact.
                    lines.extend(islice(text, block_rows))
                    if not lines:
                        return
                    yield lines
                    done += len(lines)
        except _READ_ERRORS as error:
            where = f"{self._file.path}, line {done + len(lines) + 1}"
            raise FeedError(f"{where}: expected another row or the end of the file, found: {error}") from error

    def _build_block(self, lines: list[str], times_only: bool) -> Block:
        rows, torn = self._split_lines(lines)
        cells: list[tuple[str, ...]] = list(zip(*rows, strict=True)) if rows else [()] * self._width
        faults = Faults(len(rows))
        columns = self._columns
        return Block(
            open_us=parse_times(cells[columns.timestamp], faults),
            values=() if times_only else tuple(parse_numbers(cells[column], faults) for column in columns.values),
            symbols=None if columns.symbol is None else cells[columns.symbol],
            timeframes=None if columns.timeframe is None else cells[columns.timeframe],
            faults=faults,
            torn=torn,
        )

    def _split_lines(self, lines: list[str]) -> tuple[list[Cells], int]:
        if '"' in "".join(lines):
            rows = [_split(line, self._delimiter) for line in lines]
        else:
            rows = [line.split(self._delimiter) for line in lines]
        if set(map(len, rows)) == {self._width}:
            return rows, 0
        written = [row for row, line in zip(rows, lines, strict=True) if line.strip()]
        whole = [row for row in written if len(row) == self._width]
        return whole, len(written) - len(whole)


def _open_text(file: CandleFile) -> TextIO:
    with file.path.open("rb") as raw:
        start = raw.read(2)
    if start in _UTF16_MARKS:
        raise OSError("text in UTF-16; save the file as UTF-8")
    opener = gzip.open if start == _GZIP_MAGIC else open
    # A broken character spoils its cell, not its file.
    return cast("TextIO", opener(file.path, "rt", encoding="utf-8-sig", errors="replace"))


def _read_header(text: TextIO) -> tuple[int, str]:
    """Read up to the first line that is not blank; return its number and the line, "" at the end of the file."""
    number, line = 1, text.readline(_MAX_HEADER)
    while line and not line.strip():
        number, line = number + 1, text.readline(_MAX_HEADER)
    return number, line


def _split(line: str, delimiter: str) -> Cells:
    """Split one line. A quote that is never closed ends with its line, so that it cannot swallow the next ones."""
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a cell past the reader's size limit
        return []
