"""Parts of the report: sampling, axes, histogram, heat map, formats, CSV, the document's JSON."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.runs.metrics import find_deepest_fall, find_drawdowns
from app.runs.report import formats
from app.runs.report.charts import draw_curve, draw_histogram, draw_spark
from app.runs.report.document import Document, build_heat
from app.runs.report.heat import STEPS, find_limit, step_of
from app.runs.report.sampling import sample
from app.runs.report.scales import round_scale, time_ticks
from app.runs.report.table import to_csv
from tests.unit.runs.curves import DAY_MS, FIRST_MS, curve
from tests.unit.runs.documents import document

finite = st.floats(-1e9, 1e9)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=300), st.integers(8, 60))
@example([1.0, 100.0, 50.0, 60.0, 60.0, 100.0, 200.0, 199.0, 210.0, 300.0], 8)  # the bottom is no lowest of its part
@example([1.0, 100.0, 50.0, 101.0, 102.0, 103.0, 200.0, 199.0, 210.0, 300.0], 8)  # the peak is no highest either
def test_a_sample_keeps_ends_extremes_and_the_deepest_fall(equity, points) -> None:
    made = curve(equity)
    kept = sample(made, points)
    assert len(kept.equity) <= max(points, 1)
    assert len(kept.equity) == len(kept.times_ms) == len(kept.drawdown_percent) == len(kept.close)
    assert list(kept.times_ms) == sorted(set(kept.times_ms))
    assert (kept.equity[0], kept.equity[-1]) == (equity[0], equity[-1])
    assert (min(kept.equity), max(kept.equity)) == (min(equity), max(equity))
    fall = find_deepest_fall(made.equity, find_drawdowns(made.equity))
    assert {made.times_ms[fall.peak], made.times_ms[fall.bottom]} <= set(kept.times_ms)
    assert max(kept.drawdown_percent) == pytest.approx(100 * fall.depth)


def test_a_short_curve_is_kept_as_it_is() -> None:
    assert sample(curve([1.0, 2.0, 1.5])).equity == (1.0, 2.0, 1.5)


@settings(deadline=None)
@given(finite, finite, st.integers(2, 10))
@example(0.0, 5e-324, 4)
@example(1e9, 1e9, 4)
def test_a_scale_holds_its_values_and_ends_on_its_marks(a, b, most) -> None:
    low, high = min(a, b), max(a, b)
    scale, marks = round_scale(low, high, most)
    room = 1e-6 * max(abs(low), abs(high), 1e-6)
    assert scale.low - room <= low <= high <= scale.high + room
    assert scale.low < scale.high
    assert (marks[0], marks[-1]) == (scale.low, scale.high)
    assert 2 <= len(marks) <= most + 3


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000_000), st.integers(0, 1_500_000_000_000), st.integers(3, 8))
def test_ticks_of_time_lie_inside_and_ascend(start, span, most) -> None:
    ticks = time_ticks(start, start + span, most)
    shares = [tick.share for tick in ticks]
    assert shares == sorted(set(shares))
    assert all(0 <= share <= 1 for share in shares)
    assert len(ticks) <= 3 * most


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (0.25, ["1 Jan 2024", "01:00", "02:00", "03:00", "04:00", "05:00", "06:00"]),
        (10, ["2 Jan 2024", "4 Jan", "6 Jan", "8 Jan", "10 Jan"]),
        (365, ["2024", "Apr", "Jul", "Oct"]),
        (3653, ["2024", "2026", "2028", "2030", "2032", "2034"]),
    ],
)
def test_ticks_of_time_are_what_people_write(days, labels) -> None:
    assert [tick.label for tick in time_ticks(FIRST_MS, FIRST_MS + round(days * DAY_MS))] == labels


def test_the_first_tick_says_what_the_others_leave_out() -> None:
    after_one = FIRST_MS + 3_600_000
    assert time_ticks(after_one, after_one + 6 * 3_600_000)[0].label == "1 Jan 01:00"
    assert [tick.label for tick in time_ticks(FIRST_MS + 25 * DAY_MS, FIRST_MS + 400 * DAY_MS)][:2] == [
        "Apr 2024",
        "Jul",
    ]


def test_a_curve_is_drawn_where_it_belongs() -> None:
    chart = draw_curve(sample(curve([100.0, 150.0, 75.0], close=[10.0, 10.0, 15.0])))
    assert [tick.label for tick in chart.returns] == ["\u221240", "\u221220", "0", "20", "40", "60"]
    # -25 % lies 15 of 100 above the bottom, 50 % lies 90 above it
    assert chart.equity == "M0 600L500 100L1000 850"
    assert chart.hold == "M0 600L500 600L1000 100"
    assert chart.zero == pytest.approx(0.4)
    assert [(tick.share, tick.label) for tick in chart.falls] == [(0, "0"), (0.5, "\u221225"), (1, "\u221250")]
    assert chart.drawdown == "M0 0L500 0L1000 1000L1000 0L0 0Z"
    assert draw_spark(sample(curve([1.0, 3.0, 2.0]))) == "M0 1000L500 0L1000 500"


def test_a_market_that_soars_does_not_flatten_the_units_own_line() -> None:
    chart = draw_curve(sample(curve([100.0, 110.0, 110.0], close=[10.0, 20.0, 100.0])))
    assert [tick.label for tick in chart.returns] == ["0.0", "2.5", "5.0", "7.5", "10.0"]
    assert (chart.equity, chart.hold) == ("M0 1000L500 0L1000 0", "")
    mostly = draw_curve(sample(curve([100.0, *[110.0] * 5], close=[10.0, *[11.0] * 4, 100.0])))
    assert [tick.label for tick in mostly.returns] == ["0", "5", "10", "15", "20"]
    assert mostly.hold.endswith("L1000 -44000"), "900 %, far above the square"
    flat = draw_curve(sample(curve([100.0, 100.0], close=[10.0, 20.0])))
    assert flat.hold == "M0 1000L1000 0"


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=200), st.none() | finite)
def test_a_histogram_counts_every_value_once(values, mark) -> None:
    drawn = draw_histogram(values, mark)
    assert sum(bar.count for bar in drawn.bars) == len(values)
    assert all(bar.x >= 0 and bar.x + bar.width <= 1001 and 0 < bar.height <= 1000 for bar in drawn.bars)
    assert drawn.mark is None or 0 <= drawn.mark <= 1


def test_what_luck_would_show_is_on_the_axis_unless_that_squeezes_the_units() -> None:
    near, far = (draw_histogram([0.0, 1.0, 2.0], mark) for mark in (4.0, 40.0))
    assert near.mark is not None and 0.9 < near.mark <= 1 and far.mark is None


def test_a_heat_map_has_a_cell_for_every_symbol_and_strategy() -> None:
    heat = build_heat(document(13, candles=100).units)
    assert heat.by_variant
    assert (len(heat.rows), len(heat.columns)) == (3, 6)
    assert "ema_cross (fast 12, slow 26)" in heat.columns
    assert sum(value is None for row in heat.cells for value in row) == 18 - 13
    medians = [np.median([value for value in row if value is not None]) for row in heat.cells]
    assert medians == sorted(medians, reverse=True)


def test_many_variants_share_the_column_of_their_strategy() -> None:
    unit = document(1, candles=100).units[0]
    assert unit.metrics is not None
    units = [
        unit.model_copy(
            update={
                "id": number,
                "params": {"fast": number},
                "differing": ("fast",),
                "metrics": unit.metrics.model_copy(update={"total_return_percent": float(number)}),
            }
        )
        for number in range(31)
    ]
    heat = build_heat(units)
    assert (heat.by_variant, heat.columns, heat.cells) == (False, ("ema_cross",), ((15.0,),))


@settings(deadline=None)
@given(st.lists(st.none() | finite, max_size=50))
def test_colours_have_a_side_and_a_strength(values) -> None:
    limit = find_limit(values)
    assert limit > 0
    for value in values:
        step = step_of(value, limit)
        assert (step is None) == (value is None)
        if value is not None and step is not None:
            assert abs(step) <= STEPS
            assert step * value >= 0
            assert abs(step) == STEPS or abs(value) < limit


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (formats.number(-1234.567), "\u22121,234.57"),
        (formats.number(-0.001), "0.00"),
        (formats.number(None), "\u2013"),
        (formats.percent(12.34), "12.3 %"),
        (formats.percent(3.2e9), "3e09 %"),
        (formats.signed(1.0), "+1.0 %"),
        (formats.signed(0.01), "0.0 %"),
        (formats.signed(-2.0), "\u22122.0 %"),
        (formats.compact(99.94), "99.9"),
        (formats.compact(24_258.3), "24,258"),
        (formats.price(0.000123456789), "0.000123457"),
        (formats.price(64_123.456), "64,123.5"),
        (formats.price(2_500_000.4), "2,500,000"),
        (formats.length(0.0), "0 s"),
        (formats.length(5400), "1.5 h"),
        (formats.length(86_400 * 23), "23 d"),
        (formats.length(86_400 * 500), "1.4 y"),
    ],
)
def test_numbers_are_written_for_people(written, text) -> None:
    assert written == text


def test_csv_comes_back_as_it_went() -> None:
    made = document(100, candles=100)
    rows = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert len(rows) == 100
    assert [int(row["rank"]) for row in rows] == list(range(1, 101))
    for row, unit in zip(rows, made.units, strict=True):
        assert (row["strategy"], row["symbol"], int(row["unit"])) == (unit.strategy, unit.symbol, unit.id)
        assert json.loads(row["params"]) == unit.params
        if unit.metrics is None:
            assert (row["state"], row["sharpe"], row["deflated_probability"]) == ("failed", "", "")
        else:
            assert float(row["total_return_percent"]) == unit.metrics.total_return_percent
            assert (float(row["sharpe"]) if row["sharpe"] else None) == unit.metrics.sharpe
            assert row["deflated_trials"] == ("100" if unit.deflated else "")


def test_no_cell_of_a_csv_is_a_formula() -> None:
    made = document(1, candles=100)
    unit = made.units[0].model_copy(update={"strategy": '=HYPERLINK("x")'})
    row = next(csv.DictReader(io.StringIO(to_csv(made.model_copy(update={"units": (unit,)})))))
    assert row["strategy"] == '\'=HYPERLINK("x")'


def test_a_document_comes_back_from_json() -> None:
    made = document(13, candles=100)
    assert Document.model_validate_json(made.model_dump_json()) == made


def test_units_are_ranked_by_sharpe_and_those_without_come_last() -> None:
    made = document(100, candles=100)
    sharpes = [unit.metrics.sharpe for unit in made.units if unit.metrics and unit.metrics.sharpe is not None]
    assert sharpes == sorted(sharpes, reverse=True)
    assert [unit.error is None for unit in made.units] == [True] * 99 + [False]


def test_a_label_names_the_params_that_differ_and_no_others() -> None:
    labels = {unit.label for unit in document(12, candles=100).units}
    assert labels == {
        "ema_cross (fast 12, slow 26)",
        "ema_cross (fast 9, slow 21.5)",
        "macd",
        "supertrend",
        "donchian_breakout",
        "adx_trend",
    }
