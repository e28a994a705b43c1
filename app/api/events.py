"""The progress of a run as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response, status
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api.following import Follower, Seen, look
from app.api.problems import documented
from app.api.shapes import Reader, RunId, Working

router = APIRouter(prefix="/api/runs", tags=["runs"], responses=documented(401, 404, 422, 503))

#: Milliseconds after which a client that lost its connection should come back.
RETRY_MS = 2000

EXAMPLE = """retry: 2000

event: progress
id: 3f2c9d0e5a7b1c44
data: {"run": 7, "state": "running", "units": 40, "ended": 12, "failed": 0, ...}

event: end
id: 90b1c2d3e4f5a6b7
data: {"run": 7, "state": "complete", "units": 40, "ended": 40, "failed": 0, ...}
"""

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `progress`, and `end` as the last one; the data of each are all of the progress.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}},
    },
    204: {"description": "The event named by Last-Event-ID was the end: there is nothing more, do not come back."},
}


@router.get("/{run}/events", response_class=StreamingResponse, responses=_STREAM)
async def watch_run(
    run: RunId,
    _: Reader,
    operations: Working,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="Of the last event that was received.")] = None,
) -> Response:
    """Watch a run: an event on every change, twice a second at most, until it ends.

    A client that comes back with `Last-Event-ID` is not told the same again. Whatever it missed is in the next event,
    which holds the whole progress. Without news there is a comment every 10 seconds.
    """
    follower: Follower = request.app.state.follower
    seen = await run_in_threadpool(look, operations, run)
    if seen.is_end and seen.id == last_event_id:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    follower.require_room()
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(follower, run, seen, last_event_id)
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(follower: Follower, run: int, first: Seen, last_id: str | None) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    async with aclosing(follower.follow(run, first)) as sights:
        async for seen in sights:
            if seen is None:
                yield ": no news\n\n"
            elif seen.id != last_id:
                last_id = seen.id
                yield f"event: {'end' if seen.is_end else 'progress'}\nid: {seen.id}\ndata: {seen.progress}\n\n"
