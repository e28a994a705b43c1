"""The stress tool, as small as it can be, on real servers and processes: what it reports, never how fast it was."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.domain.candles import Timeframe
from app.errors import ConfigurationError
from app.settings import Settings
from app.strategies.bars import Bars
from app.stress import markets, run
from app.stress.markets import STEP, load_series
from app.stress.plan import Plan, Size, StressError, choose_strategies
from tests.building import REPOSITORY, definition

HEADER = "timestamp,open,high,low,close,volume"


@pytest.mark.timeout(300)
def test_it_measures_and_validates_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)
    names = ("bollinger-reversion", "ema-cross-fast")
    chosen = [argument for name in names for argument in ("--strategies", name)]
    result = CliRunner().invoke(cli, ["stress", "small", *chosen, "--slots", "1", "--rounds", "3", "--json"])
    document = json.loads(result.stdout)
    assert (document["markets"], document["evaluations"], document["slots"]) == (100, 200, 1)
    assert document["strategies"] == list(names)
    assert sorted(document["rounds"])[1] == pytest.approx(document["markets_per_s"], abs=0.1)
    assert document["candles_read"] < document["candles_stored"]
    counts = document["selection"]
    assert counts["selected"] + sum(counts["rejected"].values()) == 200
    assert set(document["stages_ms"]) == {"planning", "waiting for a slot", "evaluating", "selecting"}
    assert sum(document["stages_ms"].values()) == pytest.approx(1000 * document["elapsed_s"], abs=1)
    assert 0 < document["memory_mb"][0] < 1000
    checks = {check["name"]: check["passed"] for check in document["checks"]}
    assert checks["finished"] and checks["answers"] and checks["edges"]
    assert (result.exit_code == 0) == document["passed"] == all(checks.values())


def test_it_ends_when_it_is_stopped() -> None:
    stop = Event()
    stop.set()
    said: list[str] = []
    with pytest.raises(StressError, match="stopped before the end"):
        run.run_stress(Settings(), Plan(Size.SMALL, strategies=("bollinger-reversion",)), stop, said.append)
    assert said[0].startswith("100 markets of ")


def test_a_strategy_that_is_not_built_in_is_refused() -> None:
    known = [definition("cross"), definition("bands")]
    assert choose_strategies(known, ("bands", "all")) == known
    assert choose_strategies(known, ("bands", "bands")) == known[1:]
    with pytest.raises(ConfigurationError, match=r"no built-in strategy 'crosss': did you mean 'cross'\?"):
        choose_strategies(known, ("crosss",))


def test_markets_are_stretches_of_series() -> None:
    series, source = load_series(None, 450, 60)
    assert (len(series), source) == (200, "generated:seed=7")
    cut = dict(markets._cut(series, 450, 60))
    assert len(cut) == 450
    assert {len(bars) for bars in cut.values()} == {60}
    first, last = series[0], cut["GEN000-USD-0002"]
    np.testing.assert_array_equal(last.close, first.close[len(first) - 2 * STEP - 60 : len(first) - 2 * STEP])


def test_series_of_files_are_those_of_the_usual_timeframe(tmp_path: Path) -> None:
    for name, step_s, count in (("AAA-USD-1h", 3600, 30), ("BBB-USD-1h", 3600, 20), ("CCC-USD-1d", 86_400, 40)):
        lines = [f"{1704067200 + step_s * number},10,11,9,{10 + number % 2},5" for number in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join([HEADER, *lines]))
    series, _ = load_series(tmp_path, 10, 10)
    assert [(each.symbol, each.timeframe, len(each)) for each in series] == [
        ("AAA-USD", Timeframe.H1, 30),
        ("BBB-USD", Timeframe.H1, 20),
    ]


def test_a_short_series_begins_anew() -> None:
    closes = np.arange(20.0) + 1
    bars = Bars("AAA", Timeframe.H1, np.arange(20) * 3_600_000, closes, closes, closes, closes, closes)
    cut = [market.close[-1] for _, market in markets._cut([bars], 4, 10)]
    assert cut == [20.0 - turn * STEP % 11 for turn in range(4)]


@pytest.mark.parametrize("content", [None, "", "no candles here", f"{HEADER}\n1704067200,x,y,z,0,0\n"])
def test_files_without_candles_are_wrong_usage_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)
    if content is not None:
        (tmp_path / "AAA-USD-1h.csv").write_text(content)
    with monkeypatch.context() as patched:
        patched.setattr(run, "throwaway", None)
        for data in (tmp_path, tmp_path / "absent"):
            result = CliRunner().invoke(cli, ["stress", "small", "--data", str(data)])
            assert isinstance(result.exception, ConfigurationError), result.exception
            assert str(result.exception).startswith("--data")
