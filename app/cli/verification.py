"""What the gate said, as commands show it; and the operator's decision against it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from app.cli.output import build_table, out, print_json, say
from app.errors import ConfigurationError
from app.operations_gate import Force, Verified, describe
from app.storage.verifications import Verification

Forced = Annotated[bool, typer.Option("--force", help="Enable it whatever the gate says; that is recorded.")]
Reason = Annotated[str, typer.Option(help="Why it is forced; kept, and shown by 'strategies show'.")]


def decide(*, force: bool, reason: str) -> Force | None:
    """Return the operator's decision against the gate; None when there is none.

    Raises:
        ConfigurationError: it has no reason, or a reason is given for nothing.
    """
    if bool(reason.strip()) != force:
        raise ConfigurationError("expected --force and --reason TEXT together, found one of them alone")
    return Force(f"{_user()}@{socket.gethostname()}", reason.strip()) if force else None


def document(verification: Verification | None) -> dict[str, Any] | None:
    """Build the JSON document of a verification; None when there is none."""
    if verification is None:
        return None
    shown = ("id", "verdict", "ran_on", "asked_at", "finished_at", "revision", "fingerprint")
    forced = None
    if verification.forced_at is not None:
        forced = {
            "by": verification.forced_by,
            "at": verification.forced_at,
            "reason": verification.forced_reason,
        }
    report = verification.report or {}
    values = {name: getattr(verification, name) for name in shown}
    return {**values, "finding": report.get("finding"), "figures": report.get("figures"), "forced": forced}


def summary(verification: Verification | None) -> str:
    """Say in a line or two what the gate said."""
    if verification is None:
        return "gate: this revision was not verified"
    lines = [f"gate: {verification.verdict} on {verification.ran_on} at {verification.finished_at:%Y-%m-%d %H:%M} UTC"]
    if found := describe(verification):
        lines.append(f"      {found}")
    if verification.forced_at is not None:
        by, reason = verification.forced_by, verification.forced_reason
        lines.append(f"      forced by {by} at {verification.forced_at:%Y-%m-%d %H:%M} UTC: {reason}")
    return "\n".join(lines)


def print_verified(verified: Sequence[Verified], *, as_json: bool) -> None:
    """Print reports: one JSON document, or a table and what is wrong."""
    rows = [_row(each) for each in verified]
    if as_json:
        print_json(rows)
        return
    columns = ("strategy", "verdict", "status", "candles", "evaluations", "mean_ms", "p95_ms", "memory_mb", "elapsed_s")
    out.print(build_table([{**row, **row["figures"]} for row in rows], (*columns, "ran_on")))
    tell_rejected(each.verification for each in verified)


def tell_rejected(made: Iterable[Verification]) -> None:
    """Say on stderr what is wrong with those that did not pass, and what to do."""
    for each in made:
        if each.verdict == "rejected":
            finding: Mapping[str, Any] = (each.report or {})["finding"]
            say(f"{each.strategy} did not pass: {describe(each)}", style="red")
            say(f"  {finding['hint']}")


def _row(each: Verified) -> dict[str, Any]:
    shown = document(each.verification) or {}
    return {"strategy": each.verification.strategy, "status": each.status, **shown}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
