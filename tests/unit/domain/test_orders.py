"""The risk cap: what is sent, what is refused, and that closing makes room."""

from __future__ import annotations

from app.domain.orders import ActionState, PositionKey, RiskBook
from app.domain.positions import Intent, IntentKind, Reason

ONE, TWO = PositionKey(1, "A-B", "1h"), PositionKey(2, "A-B", "1h")


def intent(kind: IntentKind, percent: float = 1.0) -> Intent:
    return Intent(0, kind, 1, percent, 1.0, 100.0, Reason.SIGNAL)


def test_what_fits_is_sent_and_what_does_not_is_refused_with_its_end() -> None:
    book = RiskBook({}, cap_percent=1.5)
    assert book.judge(ONE, intent(IntentKind.OPEN)).state is ActionState.PENDING
    refused = book.judge(TWO, intent(IntentKind.OPEN))
    assert refused.state is ActionState.REFUSED
    assert refused.reason == "1 % of the portfolio is open, 1 % more would pass the cap of 1.5 %"
    assert book.judge(TWO, intent(IntentKind.REDUCE, 0.5)).state is ActionState.REFUSED
    assert book.judge(TWO, intent(IntentKind.CLOSE)).reason == "its opening was refused"
    assert book.changed == {ONE: 1.0}


def test_closing_and_reducing_make_room() -> None:
    book = RiskBook({ONE: 1.0, TWO: 0.5}, cap_percent=1.5)
    assert book.judge(ONE, intent(IntentKind.REDUCE, 0.25)).state is ActionState.PENDING
    assert book.changed == {ONE: 0.75}
    assert book.judge(ONE, intent(IntentKind.CLOSE, 0.75)).state is ActionState.PENDING
    assert book.judge(ONE, intent(IntentKind.OPEN)).state is ActionState.PENDING


def test_shares_that_add_up_to_the_cap_fit() -> None:
    book = RiskBook({PositionKey(n, "A-B", "1h"): 0.1 for n in range(9)}, cap_percent=1.0)
    assert book.judge(PositionKey(9, "A-B", "1h"), intent(IntentKind.OPEN, 0.1)).state is ActionState.PENDING


def test_a_cap_of_nothing_sends_nothing() -> None:
    assert RiskBook({}, cap_percent=0.0).judge(ONE, intent(IntentKind.OPEN, 0.01)).state is ActionState.REFUSED
