from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.selection import (
    ROUNDING_PERCENT,
    Candidate,
    Held,
    Reason,
    Selection,
    SelectionRules,
    override,
    select,
)
from app.errors import ConfigurationError
from app.settings import BatchSettings, load_settings

RULES = SelectionRules()


def candidate(symbol: str = "BTC-USD", edge: float | None = 20.0, **changes) -> Candidate:
    return Candidate(symbol, "macd", "general", 1, edge, 0.5, 100.0)._replace(**changes)


def reasons(selection: Selection) -> dict[str, Reason]:
    return {rejected.candidate.symbol: rejected.reason for rejected in selection.rejected}


def test_a_position_risks_half_a_percent_at_a_stop_of_five():
    selection = select([candidate()], [], RULES)
    position = selection.selected[0]
    assert (position.stop, position.target) == pytest.approx((95.0, 110.0))
    assert (position.size_percent, position.risk_percent) == pytest.approx((10.0, 0.5))
    assert (selection.risk_percent, selection.exposure_percent) == pytest.approx((0.5, 10.0))


def test_a_short_one_has_them_on_the_other_side():
    position = select([candidate(action=-1)], [], RULES).selected[0]
    assert (position.stop, position.target) == pytest.approx((105.0, 90.0))


@pytest.mark.parametrize(
    ("own", "stop", "size"),
    [
        (96.0, 96.0, 12.5),  # nearer: more of it for the same risk
        (99.9, 99.9, 20.0),  # so near that the size of one position is the limit
        (90.0, 95.0, 10.0),  # farther than allowed
        (101.0, 95.0, 10.0),  # on the wrong side
        (100.0, 95.0, 10.0),  # no distance at all
    ],
)
def test_a_stop_of_its_own_counts_when_it_is_nearer(own, stop, size):
    position = select([candidate(stop=own)], [], RULES).selected[0]
    assert (position.stop, position.size_percent) == pytest.approx((stop, size))
    assert position.risk_percent == pytest.approx(size * (100 - stop) / 100)


@pytest.mark.parametrize(("own", "target"), [(103.0, 103.0), (130.0, 130.0), (99.0, 110.0)])
def test_a_target_of_its_own_counts_on_the_right_side(own, target):
    assert select([candidate(target=own)], [], RULES).selected[0].target == pytest.approx(target)


def test_every_rejection_has_its_reason():
    held = [Held("HELD", "old", 10.0, 0.5), Held("X", "full", 10.0, 0.5), Held("Y", "full", 10.0, 0.5)]
    made = [
        candidate("FLAT", action=0),
        candidate("SILENT", edge=None),
        candidate("SMALL", edge=14.99),
        candidate("HELD"),
        candidate("CROWDED", category="full"),
        candidate("TWICE", edge=30.0, strategy="rsi"),
        candidate("TWICE", edge=29.0),
    ]
    selection = select(made, held, RULES)
    assert [each.candidate.strategy for each in selection.selected] == ["rsi"]
    assert reasons(selection) == {
        "FLAT": Reason.FLAT,
        "SILENT": Reason.NO_EDGE,
        "SMALL": Reason.EDGE_BELOW_MINIMUM,
        "HELD": Reason.ALREADY_HELD,
        "CROWDED": Reason.CATEGORY_FULL,
        "TWICE": Reason.BETTER_SELECTED,
    }
    details = {each.candidate.symbol: each.detail for each in selection.rejected}
    assert details["SMALL"] == "edge 14.99 % is below 15 %"
    assert details["TWICE"] == "rsi was selected there with 30 %"
    assert details["CROWDED"] == "full has 2 of 2 positions"


def test_an_edge_of_exactly_the_minimum_is_enough():
    assert len(select([candidate(edge=15.0)], [], RULES).selected) == 1


def test_what_is_held_counts_and_the_last_position_gets_what_is_left():
    held = [Held("OLD", "old", 30.0, 19.75)]
    selection = select([candidate("A", edge=30.0), candidate("B", edge=20.0)], held, RULES)
    assert [each.risk_percent for each in selection.selected] == pytest.approx([0.25])
    assert reasons(selection) == {"B": Reason.RISK_LIMIT}
    assert selection.risk_percent == pytest.approx(20.0)


def test_nothing_is_borrowed():
    made = [candidate(str(number), category=str(number), edge=50.0 - number) for number in range(12)]
    selection = select(made, [], RULES)
    assert len(selection.selected) == 10
    assert set(reasons(selection).values()) == {Reason.EXPOSURE_LIMIT}
    assert selection.exposure_percent == pytest.approx(100.0)


def test_diversification_can_be_off():
    made = [candidate(str(number)) for number in range(5)]
    assert len(select(made, [], RULES).selected) == 2
    assert len(select(made, [], override(RULES, {"require_diversification": False})).selected) == 5


def test_a_run_overrides_what_it_names_and_nothing_else():
    rules = override(SelectionRules(per_category=7), {"min_edge_percent": 2})
    assert (rules.min_edge_percent, rules.per_category) == (2, 7)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"min_edge": 2}, r"selection\.min_edge means nothing: did you mean 'min_edge_percent'"),
        ({"per_category": 0}, "per_category 0: Input should be greater than or equal to 1"),
        ({"stop_loss_percent": 100}, "stop_loss_percent"),
        ({"min_edge_percent": float("nan")}, "min_edge_percent"),
    ],
)
def test_a_wrong_override_is_named(changes, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        override(RULES, changes)


def test_the_settings_are_the_same_rules(monkeypatch):
    assert BatchSettings().selection == RULES
    monkeypatch.setenv("CANDLEFLEET_BATCH__MIN_EDGE_PERCENT", "3.5")
    monkeypatch.setenv("CANDLEFLEET_BATCH__REQUIRE_DIVERSIFICATION", "off")
    rules = load_settings().batch.selection
    assert (rules.min_edge_percent, rules.require_diversification, rules.per_category) == (3.5, False, 2)
    assert set(SelectionRules.model_fields) < set(BatchSettings.model_fields)


prices = st.floats(1e-6, 1e6)
candidates = st.builds(
    Candidate,
    symbol=st.sampled_from([f"M{number}" for number in range(30)]),
    strategy=st.sampled_from(["a", "b", "c"]),
    category=st.sampled_from(["trend", "reversion", "news"]),
    action=st.sampled_from([-1, 0, 1, 1]),
    edge_percent=st.none() | st.floats(-10, 60) | st.sampled_from([15.0, 20.0]),
    strength=st.sampled_from([0.0, 0.5, 1.0]),
    price=prices,
    stop=st.none() | prices,
    target=st.none() | prices,
)
holdings = st.builds(
    Held,
    symbol=st.sampled_from(["M1", "M2", "OLD"]),
    category=st.sampled_from(["trend", "old"]),
    size_percent=st.floats(0, 40),
    risk_percent=st.floats(0, 15),
)
rules = st.builds(
    SelectionRules,
    min_edge_percent=st.floats(0, 30),
    max_portfolio_risk_percent=st.floats(0, 30),
    position_risk_percent=st.floats(0.01, 5),
    max_position_percent=st.floats(1, 200),
    max_exposure_percent=st.floats(1, 300),
    require_diversification=st.booleans(),
    per_category=st.integers(1, 4),
    stop_loss_percent=st.floats(0.1, 50),
    profit_target_percent=st.floats(0.1, 50),
)


@given(st.lists(candidates, max_size=40), st.lists(holdings, max_size=4), rules)
def test_every_limit_holds_whatever_comes(made, held, rules):
    selection = select(made, held, rules)
    taken, left = [each.candidate for each in selection.selected], [each.candidate for each in selection.rejected]
    assert Counter(made) == Counter([*taken, *left])
    risk, size = sum(each.risk_percent for each in held), sum(each.size_percent for each in held)
    assert selection.risk_percent <= max(rules.max_portfolio_risk_percent, risk) + ROUNDING_PERCENT
    assert selection.exposure_percent <= max(rules.max_exposure_percent, size) + ROUNDING_PERCENT
    symbols = [each.candidate.symbol for each in selection.selected]
    assert len(set(symbols)) == len(symbols)
    assert not {each.symbol for each in held} & set(symbols)
    if rules.require_diversification:
        had = Counter(each.category for each in held)
        now = had + Counter(each.candidate.category for each in selection.selected)
        assert all(now[each] <= max(rules.per_category, had[each]) for each in now)
    for each in selection.selected:
        side, price, edge = each.candidate.action, each.candidate.price, each.candidate.edge_percent
        assert edge is not None
        assert edge >= rules.min_edge_percent
        assert side * (price - each.stop) > 0
        assert side * (each.target - price) > 0
        assert abs(price - each.stop) <= price * rules.stop_loss_percent / 100 * (1 + 1e-12)
        assert 0 < each.size_percent <= rules.max_position_percent
        assert each.risk_percent <= rules.position_risk_percent * (1 + 1e-12)
        assert each.risk_percent == pytest.approx(each.size_percent * abs(price - each.stop) / price)


@given(st.lists(candidates, max_size=30), st.lists(holdings, max_size=3), rules, st.randoms(use_true_random=False))
def test_the_order_of_candidates_never_shows(made, held, rules, random):
    first = select(made, held, rules)
    assert select(random.sample(made, len(made)), random.sample(held, len(held)), rules) == first


@given(st.lists(candidates, max_size=30), candidates, rules)
def test_a_worse_candidate_changes_nothing_for_better_ones(made, worse, rules):
    least = min((each.edge_percent for each in made if each.edge_percent is not None), default=0.0)
    worse = worse._replace(edge_percent=least - 1)
    first, second = select(made, [], rules), select([*made, worse], [], rules)
    assert second.selected[: len(first.selected)] == first.selected
    assert {each.candidate for each in second.selected[len(first.selected) :]} <= {worse}


@given(st.lists(candidates, max_size=30), rules)
def test_the_best_edge_comes_first(made, rules):
    edges = [each.candidate.edge_percent or 0.0 for each in select(made, [], rules).selected]
    assert edges == sorted(edges, reverse=True)
