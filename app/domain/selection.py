"""Selection: which candidates of a batch run become positions, and how large. Pure functions.

The best edge is served first, and what it takes is gone for those after it: so a worse candidate never changes what
becomes of a better one, and the order in which candidates arrive changes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from app.domain.base import Value, explain
from app.errors import ConfigurationError, did_you_mean

#: What is left of a limit after sums that should have used it up, percent of the portfolio: rounding.
ROUNDING_PERCENT = 1e-9

Percent = Annotated[float, Field(ge=0)]
PositivePercent = Annotated[float, Field(gt=0)]


class SelectionRules(Value):
    """What is selected and how large; the settings of `batch`, and what a run overrides of them."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    min_edge_percent: Percent = 15.0
    """Least edge of a selected position, percent of price."""
    max_portfolio_risk_percent: Annotated[float, Field(ge=0, le=100)] = 20.0
    """Most that all positions together may lose at their stops, percent of the portfolio."""
    position_risk_percent: Annotated[float, Field(gt=0, le=100)] = 0.5
    """What one position may lose at its stop, percent of the portfolio."""
    max_position_percent: PositivePercent = 20.0
    """Most that one position may be worth, percent of the portfolio: a near stop is no protection against gaps."""
    max_exposure_percent: PositivePercent = 100.0
    """Most that all positions together may be worth, percent of the portfolio; above 100 is borrowed."""
    require_diversification: bool = True
    """False: any number of positions of one category."""
    per_category: Annotated[int, Field(ge=1)] = 2
    """Most positions of one category."""
    stop_loss_percent: Annotated[float, Field(gt=0, lt=100)] = 5.0
    """Farthest stop of a selected position, percent of price; a strategy's own is taken when it is nearer."""
    profit_target_percent: Annotated[float, Field(gt=0, lt=100)] = 10.0
    """Target of a selected position whose strategy states none, percent of price."""


class Candidate(NamedTuple):
    """What a strategy says of a market's latest candle. A tuple: a run makes ten thousand of them."""

    symbol: str
    strategy: str
    category: str
    action: int
    """-1 short, 0 flat, 1 long."""
    edge_percent: float | None
    """Expected advantage, percent of price, for either side above 0; None when the strategy states none."""
    strength: float
    price: float
    """Close of the candle, quote currency, above 0."""
    stop: float | None = None
    target: float | None = None


class Held(NamedTuple):
    """A position that exists already."""

    symbol: str
    category: str
    size_percent: float
    """What it is worth, percent of the portfolio."""
    risk_percent: float
    """What it loses at its stop, percent of the portfolio; all that it is worth when it has none."""


class Selected(NamedTuple):
    """A position to be opened."""

    candidate: Candidate
    stop: float
    target: float
    size_percent: float
    """Of the portfolio."""
    risk_percent: float
    """What it loses at its stop, percent of the portfolio."""


class Reason(StrEnum):
    """Why a candidate was rejected."""

    FLAT = "flat"
    NO_EDGE = "no_edge"
    EDGE_BELOW_MINIMUM = "edge_below_minimum"
    ALREADY_HELD = "already_held"
    BETTER_SELECTED = "better_selected"
    CATEGORY_FULL = "category_full"
    RISK_LIMIT = "risk_limit"
    EXPOSURE_LIMIT = "exposure_limit"


class Rejected(NamedTuple):
    """A candidate that becomes no position."""

    candidate: Candidate
    reason: Reason
    detail: str


class Selection(NamedTuple):
    """What was made of the candidates, each list best edge first."""

    selected: tuple[Selected, ...]
    rejected: tuple[Rejected, ...]
    risk_percent: float
    """At risk in the end, what was held before included; percent of the portfolio."""
    exposure_percent: float
    """In the market in the end, what was held before included; percent of the portfolio."""


def select(candidates: Iterable[Candidate], held: Iterable[Held], rules: SelectionRules) -> Selection:
    """Select positions. The result does not depend on the order of the arguments.

    Edges are served from the largest down; equal ones by strength, then by symbol and strategy. With d the distance of
    the stop as a share of the price, a position is worth

        size = min(position_risk / d, risk that is left / d, max_position, exposure that is left)

    percent of the portfolio, and size * d of it are at risk. Limits hold but for rounding (1e-9).
    Source: the percent risk model of Tharp, Trade Your Way to Financial Freedom, 2nd ed. 2007, ch. 14.
    """
    book = _Book(held, rules)
    for candidate in sorted(candidates, key=_rank):
        book.consider(candidate)
    return Selection(tuple(book.selected), tuple(book.rejected), book.risk_percent, book.exposure_percent)


def override(rules: SelectionRules, changes: Mapping[str, Any]) -> SelectionRules:
    """Build the rules of one run: the settings', with what the run says itself.

    Raises:
        ConfigurationError: an unknown name, or a value that is not allowed.
    """
    known = SelectionRules.model_fields
    for name in changes:
        if name not in known:
            raise ConfigurationError(f"selection.{name} means nothing: {did_you_mean(name, known)}")
    try:
        return SelectionRules(**{**rules.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigurationError(f"selection: {explain(error)}") from error


class _Book:
    """What is open, and what became of the candidates so far."""

    def __init__(self, held: Iterable[Held], rules: SelectionRules) -> None:
        positions = tuple(held)
        self.selected: list[Selected] = []
        self.rejected: list[Rejected] = []
        self.risk_percent = math.fsum(position.risk_percent for position in positions)
        self.exposure_percent = math.fsum(position.size_percent for position in positions)
        self._rules = rules
        self._held = {position.symbol for position in positions}
        self._taken: dict[str, Candidate] = {}
        self._categories = Counter(position.category for position in positions)

    def consider(self, candidate: Candidate) -> None:
        """Select or reject a candidate that is not better than those before it."""
        refusal = self._refuse(candidate)
        if refusal is None:
            self._take(candidate)
        else:
            self.rejected.append(Rejected(candidate, *refusal))

    def _refuse(self, candidate: Candidate) -> tuple[Reason, str] | None:
        return self._refuse_signal(candidate) or self._refuse_place(candidate) or self._refuse_size()

    def _refuse_signal(self, candidate: Candidate) -> tuple[Reason, str] | None:
        edge, least = candidate.edge_percent, self._rules.min_edge_percent
        if not candidate.action:
            return Reason.FLAT, "the strategy says flat"
        if edge is None or not math.isfinite(edge):
            return Reason.NO_EDGE, "the strategy states no edge with its signal"
        if edge < least:
            return Reason.EDGE_BELOW_MINIMUM, f"edge {edge:.4g} % is below {least:g} %"
        return None

    def _refuse_place(self, candidate: Candidate) -> tuple[Reason, str] | None:
        if candidate.symbol in self._held:
            return Reason.ALREADY_HELD, f"{candidate.symbol} is held already"
        if (better := self._taken.get(candidate.symbol)) is not None:
            return Reason.BETTER_SELECTED, f"{better.strategy} was selected there with {better.edge_percent:.4g} %"
        count = self._categories[candidate.category]
        if self._rules.require_diversification and count >= self._rules.per_category:
            return Reason.CATEGORY_FULL, f"{candidate.category} has {count} of {self._rules.per_category} positions"
        return None

    def _refuse_size(self) -> tuple[Reason, str] | None:
        risk, exposure = self._left()
        if risk <= ROUNDING_PERCENT:
            return Reason.RISK_LIMIT, f"{self._rules.max_portfolio_risk_percent:g} % of the portfolio are at risk"
        if exposure <= ROUNDING_PERCENT:
            return Reason.EXPOSURE_LIMIT, f"{self._rules.max_exposure_percent:g} % of the portfolio are in the market"
        return None

    def _left(self) -> tuple[float, float]:
        """Return what is left of the limits of risk and exposure, percent of the portfolio."""
        rules = self._rules
        return rules.max_portfolio_risk_percent - self.risk_percent, rules.max_exposure_percent - self.exposure_percent

    def _take(self, candidate: Candidate) -> None:
        risk_left, exposure_left = self._left()
        stop, target = _levels(candidate, self._rules)
        distance = abs(candidate.price - stop) / candidate.price
        by_risk = min(self._rules.position_risk_percent, risk_left) / distance
        size = min(by_risk, self._rules.max_position_percent, exposure_left)
        self.selected.append(Selected(candidate, stop, target, size, size * distance))
        self.risk_percent += size * distance
        self.exposure_percent += size
        self._taken[candidate.symbol] = candidate
        self._categories[candidate.category] += 1


def _levels(candidate: Candidate, rules: SelectionRules) -> tuple[float, float]:
    """Return stop and target: the candidate's own on the right side of its price, the stop no farther than allowed."""
    price, side = candidate.price, candidate.action
    stop = price * (1 - side * rules.stop_loss_percent / 100)
    target = price * (1 + side * rules.profit_target_percent / 100)
    if candidate.stop is not None and 0 < side * (price - candidate.stop) < side * (price - stop):
        stop = candidate.stop
    if candidate.target is not None and side * (candidate.target - price) > 0:
        target = candidate.target
    return stop, target


def _rank(candidate: Candidate) -> tuple[float | str, ...]:
    edge, stop, target = candidate.edge_percent, candidate.stop or 0.0, candidate.target or 0.0
    known = -math.inf if edge is None or math.isnan(edge) else edge
    names = (candidate.symbol, candidate.strategy, candidate.category)
    return (-known, -candidate.strength, *names, candidate.action, candidate.price, stop, target)
