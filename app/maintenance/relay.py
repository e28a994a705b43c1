"""The relay: order intents go from the outbox to a Redis Stream, in their order, each at least once.

It appends first and notes that afterwards: killed in between, it appends again, and whoever reads the stream knows the
repeated entry by its idempotency key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis.typing import EncodableT, FieldT

from app.broker import Publisher
from app.maintenance.base import Begin, Report
from app.storage.actions import load_unsent, mark_sent, send_again

#: Intents of one round: what Redis takes in some milliseconds.
MOST_SENT = 500

#: How far back intents are sent again when the stream is gone: readers had hardly more in front of them.
SENT_AGAIN = timedelta(hours=1)

_SIDES = {1: "long", -1: "short"}
_FIELDS = (
    *("id", "idempotency_key", "strategy", "strategy_id", "strategy_revision", "symbol", "timeframe", "open_time"),
    *("kind", "side", "size_percent", "quantity", "price", "stop", "target", "cause", "correlation_id", "created_at"),
)


@dataclass(frozen=True, slots=True)
class Relay:
    """Sends order intents on."""

    begin: Begin
    publisher: Publisher
    stream: str
    """Key of the stream, with the deployment's prefix."""
    length: int
    """Entries that it keeps, approximately."""
    every_s: float
    name: str = "relay"

    def run_once(self, now: datetime) -> Report:
        """Append what is to be sent; after Redis was emptied, what was sent lately as well."""
        again = self._send_lost_again(now)
        with self.begin() as connection:
            actions = load_unsent(connection, MOST_SENT)
        if actions:
            self._append(actions)
            with self.begin() as connection:
                mark_sent(connection, [action["id"] for action in actions])
        return Report.of(has_more=len(actions) == MOST_SENT, sent=len(actions), again=again)

    def _send_lost_again(self, now: datetime) -> int:
        with self.publisher.redis() as client:
            if client.exists(self.stream):
                return 0
        with self.begin() as connection:
            return send_again(connection, now, SENT_AGAIN)

    def _append(self, actions: Sequence[Mapping[str, Any]]) -> None:
        with self.publisher.redis() as client:
            pipeline = client.pipeline(transaction=False)
            for action in actions:
                pipeline.xadd(self.stream, entry(action), maxlen=self.length, approximate=True)
            pipeline.execute()


def entry(action: Mapping[str, Any]) -> dict[FieldT, EncodableT]:
    """Return an intent as the stream holds it: text, fields without a value left out."""
    values = {**{name: action[name] for name in _FIELDS}, "side": _SIDES[action["side"]]}
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
