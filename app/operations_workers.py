"""Worker nodes as an operator handles them: what each is doing, and how many slots it has."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.errors import ConfigurationError, NodeUnavailableError, did_you_mean
from app.operations import Operations
from app.settings import MOST_SLOTS
from app.storage.nodes import load_nodes

#: Seconds a node may take to answer, and then again to show its new number of slots: several heartbeats.
ANSWERS_WITHIN_S, SHOWS_WITHIN_S = 5.0, 15.0

#: Seconds between two looks at a node's row.
LOOK_EVERY_S = 0.1

_CHANGE = re.compile(r"([+=-])(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Scaled:
    """What became of a node that was given more slots, or fewer."""

    node: str
    before: int
    """Slots it had."""
    slots: int
    """Slots it has. Of those it gave up, busy ones finish what they run."""


def list_workers(operations: Operations) -> list[dict[str, Any]]:
    """Load the worker nodes by name: what each is doing, has done and takes. Plain JSON values and datetimes.

    Raises:
        StorageUnavailableError: Postgres is away.
    """
    shown = ("slots", "busy", "queues", "processed", "errors")
    return [
        {
            "name": row["node"],
            **{name: row[name] for name in shown},
            "error_percent": round(100 * row["errors"] / row["processed"], 2) if row["processed"] else None,
            "uptime_s": max(0, round((row["seen_at"] - row["started_at"]).total_seconds())),
            "memory_mb": round(row["rss_bytes"] / 2**20),
            "seen": row["seen_at"],
            "is_alive": row["is_alive"],
        }
        for row in _nodes(operations)
    ]


def scale(operations: Operations, node: str, change: str) -> Scaled:
    """Give a running node more slots, or fewer, and wait until it says that it has them.

    A slot that is busy finishes what it runs before it goes.

    Args:
        operations: of the deployment.
        node: its name.
        change: ``+2``, ``-1`` or ``=4``.

    Raises:
        ConfigurationError: no node is called so, or it cannot have that many slots.
        NodeUnavailableError: it is gone, does not answer, refuses, or shows another number than was asked for.
        BrokerUnavailableError, StorageUnavailableError: a server is away.
    """
    sign, number = parse_change(change)
    row = _find(_nodes(operations), node)
    before = row["slots"]
    wanted = {"+": before + number, "-": before - number, "=": number}[sign]
    if not 1 <= wanted <= MOST_SLOTS:
        raise ConfigurationError(
            f"expected 1 to {MOST_SLOTS} slots, found that {node} has {before} and would get {wanted}"
        )
    if wanted == before:
        return Scaled(node, before, before)
    _tell(operations, row, wanted - before)
    return Scaled(node, before, _await(operations, node, wanted, row["seen_at"]))


def parse_change(text: str) -> tuple[str, int]:
    """Read how slots shall change: a sign (``+``, ``-`` or ``=``) and a number.

    Raises:
        ConfigurationError: it is something else.
    """
    match = _CHANGE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"expected slots as +2, -1 or =4, found {text!r}")
    return match[1], int(match[2])


def _nodes(operations: Operations) -> list[dict[str, Any]]:
    with operations.reading() as connection:
        return load_nodes(connection, operations.settings.silence)


def _find(rows: Sequence[Mapping[str, Any]], node: str) -> Mapping[str, Any]:
    row = next((row for row in rows if row["node"] == node), None)
    if row is None:
        raise ConfigurationError(f"no node {node!r}: {did_you_mean(node, (row['node'] for row in rows))}")
    return row


def _tell(operations: Operations, row: Mapping[str, Any], by: int) -> None:
    # a busy node may be late with a sign of life: whether it answers is what counts
    node = row["node"]
    command = "pool_grow" if by > 0 else "pool_shrink"
    answer = operations.queues.ask(node, command, {"n": abs(by)}, within_s=ANSWERS_WITHIN_S)
    if answer is None:
        seen = f"it was last seen at {row['seen_at']:%Y-%m-%d %H:%M:%S}"
        raise NodeUnavailableError(f"node {node} did not answer within {ANSWERS_WITHIN_S:g} s; {seen}: look at its log")
    if "error" in answer:
        raise NodeUnavailableError(f"node {node} refused: {answer['error']}")


def _await(operations: Operations, node: str, wanted: int, told_after: datetime) -> int:
    """Wait until the node's row shows what was asked for."""
    ends_at, shown = time.monotonic() + SHOWS_WITHIN_S, None
    while time.monotonic() < ends_at:
        row = _find(_nodes(operations), node)
        if row["seen_at"] > told_after and (shown := row["slots"]) == wanted:
            return wanted
        time.sleep(LOOK_EVERY_S)
    raise NodeUnavailableError(
        f"expected {node} to show {wanted} slots within {SHOWS_WITHIN_S:g} s, found {shown}: somebody else may have "
        "scaled it too; look with `candlefleet workers list`"
    )
