"""`candlefleet replay`: a stored dispatch, evaluated again and compared with what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from app.cli.filters import MOST_DISPATCH
from app.cli.operating import operating
from app.cli.output import Json, build_table, err, out, print_json, say
from app.operations_replay import Replay
from app.operations_replay import replay as replay_dispatch


def replay(
    dispatch: Annotated[int, typer.Argument(min=1, max=MOST_DISPATCH, help="Number of the dispatch.")],
    strategy: Annotated[str | None, typer.Option(help="Only this strategy.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a stored dispatch again and print every difference from its outcomes; exit code 1 if there is one."""
    with operating() as operations:
        found = replay_dispatch(operations, dispatch, strategy)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    if found.differs:
        raise typer.Exit(1)


def _document(found: Replay) -> dict[str, Any]:
    dispatch = found.dispatch
    return {
        "dispatch": dispatch.id,
        "symbol": dispatch.symbol,
        "timeframe": dispatch.timeframe,
        "open_time": dispatch.open_time,
        "candles": found.candles,
        "differs": found.differs,
        "corrected_since": list(dispatch.changed),
        "jobs": [{**asdict(job), "is_same": not job.differences} for job in found.jobs],
    }


def _print(found: Replay) -> None:
    dispatch = found.dispatch
    candle = f"{dispatch.symbol} {dispatch.timeframe} {dispatch.open_time:%Y-%m-%d %H:%M}"
    say(f"dispatch {dispatch.id}, {candle}, window of {found.candles} candles")
    for each in dispatch.changed:
        what = f"corrected (now revision {each['revision']})" if each["revision"] else "inserted"
        at = f"{each['received_at']:%Y-%m-%d %H:%M:%S}"
        say(f"candle {each['open_time']:%Y-%m-%d %H:%M} was {what} since then, at {at}")
    rows = [
        {
            "strategy": job.strategy,
            "revision": job.revision,
            "status": job.status,
            "value": each.value if each else "",
            "recorded": str(each.recorded) if each else "",
            "replayed": str(each.replayed) if each else ("" if job.note.startswith("not compared") else "the same"),
            "note": job.note,
        }
        for job in found.jobs
        for each in (job.differences or (None,))
    ]
    if rows:
        out.print(build_table(rows, ("strategy", "revision", "status", "value", "recorded", "replayed", "note")))
    else:
        err.print("No outcome yet.")
