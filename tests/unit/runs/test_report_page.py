"""The page of a report: what it holds, what it leaves out and says so, and what it never lets through."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from app.domain.candles import Timeframe
from app.runs.metrics import compute
from app.runs.report.document import Document, RejectedCandidate, UnitReport, build_document
from app.runs.report.html import to_html
from app.runs.report.page import build_page
from app.runs.report.sampling import sample
from tests.unit.runs.curves import NO_TRADES, curve, trades
from tests.unit.runs.documents import document

EVIL = "<script>alert(1)</script>\"'&"

#: Elements that have no end tag.
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Reads a page: its elements, its text by section, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self._section, []).append(" ".join(data.split()))

    def text(self, section: str) -> str:
        return " ".join(self.texts.get(section, []))

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= attrs.items() for name, attrs in self.elements)


@pytest.fixture(scope="module")
def sixty() -> Reader:
    return Reader(to_html(document(60, candles=400)))


def test_the_page_needs_nothing_from_anywhere() -> None:
    html = to_html(document(60, candles=400))
    reader = Reader(html)
    names = {name for _, attrs in reader.elements for name in attrs}
    assert not names & {"src", "srcset", "background", "action", "data", "poster", "xlink:href"}
    links = [attrs["href"] or "" for _, attrs in reader.elements if "href" in attrs]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html)
    ids = {attrs.get("id") for _, attrs in reader.elements}
    assert {link[1:] for link in links} <= ids


def test_only_the_pages_own_script_may_run() -> None:
    html = to_html(document(1, candles=100))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == 1
    hashed = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{hashed}'" in html.replace("&#39;", "'")
    assert "default-src 'none'" in html


def test_every_section_is_there(sixty: Reader) -> None:
    sections = [attrs["id"] for tag, attrs in sixty.elements if tag == "section"]
    assert sections == ["leaderboard", "curves", "params", "luck", "heat", "selection", "validation", "run"]
    assert "13 best of each strategy on a symbol, of 60 units" in sixty.text("curves")
    assert sixty.count("figure", **{"class": "small"}) == 12
    assert "trading.fee_percent 0.1" in sixty.text("run")
    assert "TA-Lib 0.8.2" in sixty.text("run")
    assert "edge below minimum" in sixty.text("selection")
    assert "7 of 7 checks" in sixty.text("")


def test_the_numbers_are_the_documents() -> None:
    made = compute(
        curve([10_000.0, 11_000.0, 9900.0, 10_890.0], close=[50, 55, 60, 52], exposure=[0, 1, -0.5, 0]),
        trades(400.0, -100.0),
        Timeframe.D1,
    )
    unit = UnitReport(
        id=1,
        strategy="macd",
        params={"fast": 12, "width": 2.0},
        symbol="BTC-USD",
        timeframe=Timeframe.D1,
        state="succeeded",
        metrics=made,
        curve=sample(curve([10_000.0, 11_000.0, 9900.0, 10_890.0])),
    )
    reader = Reader(to_html(rebuilt(document(1, candles=100), units=[unit])))
    text = reader.text("leaderboard")
    assert "params: fast 12, width 2" in reader.text("curves")
    row = (
        "1 macd BTC-USD 1d",
        "5.52",  # 0.2887 times the root of 365.25
        "\u2013 \u2013",  # no deflation
        "8.9 10.0",  # return, drawdown
        "2 50.0 4.00",  # trades, win rate, profit factor
        "4.0 4.9 3e06",  # holding, what is above it; 1.089 to the power of 121.75
        "220.7 11.03",  # 11.55 % and 0.5774 times the same root
        "2 d 37.5",  # longest fall, exposure
        "1.00 0.0",  # fees, turnover
    )
    assert " ".join(row) in text


def rebuilt(made: Document, **changes: Any) -> Document:
    """Build a document again with other parts."""
    names = ("made_at", "run", "spec", "data", "versions", "units", "selection", "validation")
    return build_document(**{**{name: getattr(made, name) for name in names}, **changes})


def test_whatever_comes_from_outside_is_escaped() -> None:
    made = document(3, candles=100)
    unit = made.units[0].model_copy(update={"strategy": EVIL, "symbol": EVIL, "params": {EVIL: EVIL}})
    failed = unit.model_copy(update={"id": 99, "metrics": None, "curve": None, "error": EVIL, "state": EVIL})
    assert made.selection is not None
    rejected = RejectedCandidate(
        symbol=EVIL, strategy=EVIL, category=EVIL, action=1, edge_percent=1.0, reason=EVIL, detail=EVIL
    )
    html = to_html(
        rebuilt(
            made,
            units=[unit, failed, *made.units[1:]],
            spec={EVIL: EVIL},
            versions={EVIL: EVIL},
            data=[made.data[0].model_copy(update={"symbol": EVIL})],
            run=made.run.model_copy(update={"state": EVIL}),
            selection=made.selection.model_copy(update={"rejected": (rejected,)}),
        )
    )
    reader = Reader(html)
    assert reader.count("script") == 1
    for section in ("", "leaderboard", "curves", "heat", "selection", "failed", "run"):
        assert EVIL in reader.text(section).replace("_", " "), section
    assert not any(name.startswith("on") for _, attrs in reader.elements for name in attrs)


def test_a_large_run_stays_small_and_says_what_is_cut() -> None:
    made = document(2400, candles=60)
    html = to_html(made)
    assert len(html) < 1_000_000
    reader = Reader(html)
    assert "the 100 best of 2,376 units" in reader.text("leaderboard")
    assert reader.count("path", **{"class": "equity"}) == 113
    assert re.search(r"the 30 best and 30 worst of 400 symbols; those left out have medians from", reader.text("heat"))
    shown = [symbol in reader.text("heat") for symbol in made.heat.rows]
    assert shown == [True] * 30 + [False] * 340 + [True] * 30
    assert "the 100 first of 400 series" in reader.text("run")
    assert "the 100 best of 392 candidates" in reader.text("selection")
    assert "Shown" not in reader.text("failed")  # 24 of them


def test_a_run_that_only_selects_has_no_leaderboard() -> None:
    made = document(60, candles=100)
    units = [unit.model_copy(update={"metrics": None, "deflated": None, "curve": None}) for unit in made.units]
    reader = Reader(to_html(rebuilt(made, units=units, run=made.run.model_copy(update={"kind": "evaluate"}))))
    sections = [attrs["id"] for tag, attrs in reader.elements if tag == "section"]
    assert sections == ["selection", "validation", "run"]


def test_the_best_variants_of_one_pair_do_not_crowd_out_the_other_pairs() -> None:
    made = document(60)
    pairs = [(each.unit.strategy, each.unit.symbol) for each in build_page(made).panels]
    assert len(set(pairs)) == len(pairs) == 13
    alone = [unit.model_copy(update={"strategy": "one", "symbol": "ONE"}) for unit in made.units]
    assert len(build_page(rebuilt(made, units=alone)).panels) == 13


def test_a_run_whose_details_are_gone_says_so_and_has_no_empty_charts() -> None:
    made = document(60, candles=100)
    units = [unit.model_copy(update={"curve": None}) for unit in made.units]
    reader = Reader(to_html(rebuilt(made, units=units, run=made.run.model_copy(update={"trimmed": True}))))
    assert "Details were deleted." in reader.text("") and "charts are missing for that reason" in reader.text("")
    assert "curves" not in [attrs.get("id") for _, attrs in reader.elements]
    assert "Equity" not in reader.text("leaderboard") and reader.count("svg", **{"class": "spark"}) == 0


def test_warnings_of_the_plan_are_told() -> None:
    made = rebuilt(document(1, candles=100), warnings=("219 candles are missing",))
    assert "219 candles are missing" in Reader(to_html(made)).text("")


def test_a_run_of_nothing_is_a_page_all_the_same() -> None:
    empty = rebuilt(document(1, candles=100), units=[], data=[], spec={}, versions={}, validation=None)
    assert [attrs["id"] for tag, attrs in Reader(to_html(empty)).elements if tag == "section"] == ["run"]


def test_a_ruined_unit_and_a_single_candle_can_be_drawn() -> None:
    made = document(1, candles=100)
    units = [
        made.units[0].model_copy(
            update={
                "id": number,
                "metrics": compute(each, NO_TRADES, Timeframe.D1),
                "curve": sample(each),
                "deflated": None,
            }
        )
        for number, each in enumerate((curve([100.0, 50.0, 0.0]), curve([100.0]), curve([1e-9, 1e9])))
    ]
    text = Reader(to_html(rebuilt(made, units=units))).text("leaderboard")
    assert "\u2212100" in text
    assert "1e+20" not in text
