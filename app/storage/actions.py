"""The outbox of order intents: written with what they follow from, under the risk cap, and sent on in their order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection as DriverConnection
from psycopg import Cursor
from sqlalchemy import Connection, text

from app.domain.orders import Judged, PositionKey, RiskBook
from app.domain.positions import Intent, IntentKind
from app.storage.positions import Move, Told

#: Advisory lock of whoever writes intents, held until its commit: what is open cannot change while it is counted, and
#: ids become visible in their order. Any constant of our own does.
LOCK = 0x616374696F6E

_AT_RISK = "SELECT strategy_id, symbol, timeframe, risk_percent FROM positions WHERE risk_percent > 0"

_KEEP_RISK = """
    UPDATE positions p SET risk_percent = r.percent
    FROM json_to_recordset(%(risks)s::json) AS r(strategy_id int, symbol text, timeframe text, percent float8)
    WHERE p.strategy_id = r.strategy_id AND p.symbol = r.symbol AND p.timeframe = r.timeframe
"""

_PLACE = """
    INSERT INTO actions (idempotency_key, strategy_id, symbol, timeframe, open_time, strategy_revision, kind, side,
                         size_percent, quantity, price, stop, target, cause, correlation_id, state, reason)
    SELECT idempotency_key, strategy_id, symbol, timeframe, to_timestamp(0) + opened_ms * interval '1 millisecond',
           revision, kind, side, size_percent, quantity, price, stop, target, cause, correlation_id, state, reason
    FROM json_to_recordset(%(actions)s::json) AS a(
        idempotency_key text, strategy_id int, symbol text, timeframe text, opened_ms bigint, revision int, kind text,
        side int2, size_percent float8, quantity float8, price float8, stop float8, target float8, cause text,
        correlation_id text, state text, reason text)
    ON CONFLICT (idempotency_key) DO NOTHING
"""

_UNSENT = text("""
    SELECT a.*, s.name AS strategy FROM actions a JOIN strategies s ON s.id = a.strategy_id
    WHERE a.state = 'pending' ORDER BY a.id LIMIT :limit
""")
_MARK_SENT = text("UPDATE actions SET state = 'sent', sent_at = clock_timestamp() WHERE id = ANY(:ids)")
_SEND_AGAIN = text("UPDATE actions SET state = 'pending', sent_at = NULL WHERE state = 'sent' AND sent_at > :since")


def ask_risk(driver: DriverConnection[Any]) -> Cursor[Any]:
    """Take the lock of whoever writes intents, until the commit, and ask what is open.

    In a pipeline nothing is waited for.
    """
    driver.execute("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": LOCK}, prepare=True)
    return driver.execute(_AT_RISK, prepare=True)


def place_actions(
    driver: DriverConnection[Any],
    moves: Sequence[Move],
    saved: set[PositionKey],
    at_risk: Cursor[Any],
    cap_percent: float,
) -> None:
    """Write the order intents of positions that were saved, in the caller's transaction: the last thing it does.

    Args:
        driver: of psycopg.
        moves: what was to be saved.
        saved: what was.
        at_risk: of `ask_risk`.
        cap_percent: most of the portfolio that may be open.
    """
    book = RiskBook({PositionKey(*row[:3]): row[3] for row in at_risk.fetchall()}, cap_percent)
    wanted = [(move.key, told, told.what) for move in moves if move.key in saved for told in move.intents]
    placed = sorted(((key, told, what) for key, told, what in wanted if isinstance(what, Intent)), key=_in_time)
    rows = [_row(key, told, intent, book.judge(key, intent)) for key, told, intent in placed]
    driver.execute(_PLACE, {"actions": json.dumps(rows)}, prepare=True)
    risks = [{**key._asdict(), "percent": percent} for key, percent in sorted(book.changed.items())]
    driver.execute(_KEEP_RISK, {"risks": json.dumps(risks)}, prepare=True)


def load_unsent(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Load the oldest intents that are to be sent, with their strategy's name."""
    return [dict(row) for row in connection.execute(_UNSENT, {"limit": limit}).mappings()]


def mark_sent(connection: Connection, ids: Sequence[int]) -> None:
    """Note that intents are on the stream. Idempotent."""
    connection.execute(_MARK_SENT, {"ids": list(ids)})


def send_again(connection: Connection, now: datetime, within: timedelta) -> int:
    """Have the intents sent lately sent once more; return how many."""
    return connection.execute(_SEND_AGAIN, {"since": now - within}).rowcount


def idempotency_key(key: PositionKey, intent: Intent) -> str:
    """Build what tells a repeated intent from another one: a candle has at most one of a kind for a position."""
    return f"{key.strategy_id}:{key.symbol}:{key.timeframe}:{intent.opened_ms}:{intent.kind.value}"


def _in_time(each: tuple[PositionKey, Told, Intent]) -> tuple[int, bool, PositionKey]:
    key, _, intent = each
    return intent.opened_ms, intent.kind is IntentKind.OPEN, key  # what is closed makes room for what is opened


def _row(key: PositionKey, told: Told, intent: Intent, judged: Judged) -> dict[str, Any]:
    known = intent._asdict()
    return {
        **key._asdict(),
        **known,
        "idempotency_key": idempotency_key(key, intent),
        "revision": told.revision,
        "correlation_id": told.correlation_id,
        "cause": intent.reason.value,
        "state": judged.state.value,
        "reason": judged.reason,
    }
