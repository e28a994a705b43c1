"""Finding candle files under paths, and what a file's name says about its series."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: What counts as a candle file inside a folder; a path that is named directly may be called anything.
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")

_SERIES_NAME = re.compile(r"(?:(?P<symbol>.+)[-_])?(?P<timeframe>\d+[A-Za-z]+)")


@dataclass(frozen=True, kw_only=True)
class CandleFile:
    """A file to replay. Of two versions of one candle, the file with the lower rank says the first."""

    path: Path
    rank: int
    symbol: str | None
    timeframe: str | None


def find_files(paths: Sequence[Path]) -> tuple[list[CandleFile], list[str]]:
    """Find the candle files of every path: the file itself, or all candle files below a folder.

    Returns:
        The files, ranked by position of their path and then by name; and a message for every path
        that leads to none.
    """
    found: list[Path] = []
    problems: list[str] = []
    for path in paths:
        below = sorted(_walk(path)) if path.is_dir() else [path] if path.exists() else []
        found += below
        if not below:
            problems.append(_describe_nothing(path))
    unique = dict.fromkeys(found)
    return [describe_file(path, rank) for rank, path in enumerate(unique)], problems


def describe_file(path: Path, rank: int = 0) -> CandleFile:
    """Read symbol and timeframe off a name such as ``BTC-USDT-1h.csv.gz``; None where the name has none."""
    match = _SERIES_NAME.fullmatch(_stem(path.name))
    symbol, timeframe = (match["symbol"], match["timeframe"]) if match else (None, None)
    return CandleFile(path=path, rank=rank, symbol=symbol, timeframe=timeframe)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def _stem(name: str) -> str:
    suffix = next((suffix for suffix in sorted(SUFFIXES, key=len) if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _describe_nothing(path: Path) -> str:
    if path.is_dir():
        return f"{path}: expected candle files ({', '.join(SUFFIXES)}), found none in the folder or below"
    return f"{path}: expected a candle file or a folder of them, found no such path"
