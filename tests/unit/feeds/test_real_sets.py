"""Replays every set of real candles that lies next to the repository, and holds it against the sets' manifest."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from app.feeds.replay import ReplayFeed
from tests.unit.feeds.writing import flatten

DATA = Path(__file__).parents[4] / "shared" / "data"
MANIFEST = DATA / "MANIFEST.csv"

#: Gaps that the manifest counts only because it walks the rows as they stand: in time order the file has none.
GAPS_OF_ORDER = {"dirty-newest-first": 5}

pytestmark = pytest.mark.skipif(not MANIFEST.exists(), reason=f"no real candles: {MANIFEST} does not exist")


class Facts(NamedTuple):
    rows: int
    offgrid: int
    gaps: int
    backwards: int


def _load_manifest() -> dict[str, dict[str, Facts]]:
    sets: dict[str, dict[str, Facts]] = {}
    if MANIFEST.exists():
        with MANIFEST.open(newline="") as text:
            for row in csv.DictReader(text):
                folder, name = row["file"].split("/")
                facts = Facts(*(int(row[field]) for field in Facts._fields))
                sets.setdefault(folder, {})[name.removesuffix(".csv.gz")] = facts
    return sets


SETS = _load_manifest()


@pytest.mark.parametrize("folder", sorted(SETS))
def test_a_set_replays_with_the_counts_of_the_manifest(folder: str) -> None:
    files = SETS[folder]
    feed = ReplayFeed([DATA / folder])
    counted: Counter[str] = Counter()
    last = None
    for batch in feed.batches():
        close = batch[0].close_time
        assert all(candle.close_time == close for candle in batch)
        assert last is None or last < close
        last = close
        counted.update(f"{candle.symbol}-{candle.timeframe}" for candle in batch)
    assert counted == {name: facts.rows - facts.offgrid for name, facts in files.items()}
    offgrid = sum(facts.offgrid for facts in files.values())
    assert feed.report.rejected == ({"off_grid": offgrid} if offgrid else {})
    assert feed.report.accepted == sum(facts.rows for facts in files.values()) - offgrid
    assert feed.report.gaps == sum(facts.gaps for facts in files.values()) - GAPS_OF_ORDER.get(folder, 0)
    assert feed.report.reordered == sum(facts.backwards for facts in files.values())
    assert feed.report.unreadable == []


@pytest.mark.skipif("binance-1h-2021-restated" not in SETS, reason="the restated set is not there")
def test_a_restated_set_corrects_the_first_one() -> None:
    folders = ["binance-1h-2021", "binance-1h-2021-restated"]
    name = "BTC-USDT-1h.csv.gz"
    feed = ReplayFeed([DATA / folder / name for folder in folders])
    candles = flatten(list(feed.batches()))
    times = Counter(candle.open_time for candle in candles)
    restated = sorted(moment.strftime("%Y-%m-%d %H:%M") for moment, versions in times.items() if versions > 1)
    assert restated == ["2020-12-21 13:00", "2021-01-11 08:00", "2021-04-23 01:00"]
    assert len(times) == 9171 + 4
    assert feed.report.rejected == {"duplicate": 9171 - 1 - 3}
