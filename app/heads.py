"""The message in front of a queue, as Redis holds it: when its first job was dispatched, without building it all."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from app.domain.queues import Waiting


def read_waiting(depth: int, oldest: bytes | None, now: datetime) -> Waiting:
    """Return what waits in a queue.

    Args:
        depth: messages waiting.
        oldest: the one in front; None when there is none.
        now: current moment.
    """
    dispatched_at = None if oldest is None else read_dispatched_at(oldest)
    return Waiting(depth, None if dispatched_at is None else max(0.0, (now - dispatched_at).total_seconds()))


def read_dispatched_at(raw: bytes | str) -> datetime | None:
    """Return when the first chunk of a raw message was dispatched; None when it carries anything else."""
    try:
        arguments, *_ = json.loads(base64.b64decode(json.loads(raw)["body"]))
        return datetime.fromtimestamp(arguments[0]["chunks"][0]["created_us"] / 1_000_000, UTC)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, OSError, RecursionError):
        return None
