"""The gate's process: reads a request from stdin, forks a child for each case, writes their endings to stdout.

It imports what strategies are written with, and never a strategy of a user: each child starts from the same state.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from app.domain.strategies import Limits
from app.gate.child import Child
from app.gate.limits import Mark
from app.gate.sandbox import CASE_LIMIT_S, GRACE_S
from app.gate.wire import Case, Ending, Place, Request, TwinAnswers, unpack
from app.strategies.bars import Bars

#: Seconds between two looks at what a child does.
LOOK_EVERY_S = 0.05

#: Bytes read from a child at a time.
CHUNK = 65_536


def main() -> None:
    """Do what stdin asks for."""
    request, series = unpack(sys.stdin.buffer.read())
    twins = request.twins or (None,) * len(request.cases)
    endings = [_run(request, series, *pair) for pair in zip(request.cases, twins, strict=True)]
    json.dump([ending.model_dump(mode="json") for ending in endings], sys.stdout)


def _run(request: Request, series: Sequence[Bars], case: Case, twin: TwinAnswers | None) -> Ending:
    mark = Mark()
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_child(Child(request, series, mark), case, twin, writer)
    os.close(writer)
    try:
        told, slow = _listen(reader, mark, case.limits)
    finally:
        os.close(reader)
        if slow:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return _end(told, slow, status, mark, series)


def _be_child(child: Child, case: Case, twin: TwinAnswers | None, writer: int) -> None:
    """Become the child; does not return."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)  # what a strategy prints must not mix with endings
        answer = json.dumps(child.work(case, twin)).encode()
        while answer:
            answer = answer[os.write(writer, answer) :]
        code = 0
    finally:
        os._exit(code)


def _listen(reader: int, mark: Mark, limits: Limits) -> tuple[bytes, bool]:
    """Read a child's answer to its end; tell whether it has to be ended instead."""
    told = bytearray()
    until = time.monotonic() + CASE_LIMIT_S
    while True:
        if select.select([reader], [], [], LOOK_EVERY_S)[0]:
            read = os.read(reader, CHUNK)
            if not read:
                return bytes(told), False
            told += read
        since_s, now = mark.read().since_s, time.monotonic()
        if now > until or (since_s and now - since_s > limits.timeout_ms / 1000 + GRACE_S):
            return bytes(told), True


def _end(told: bytes, slow: bool, status: int, mark: Mark, series: Sequence[Bars]) -> Ending:
    if status == 0 and not slow and told:
        return Ending(answer=json.loads(told))
    code = os.waitstatus_to_exitcode(status)
    died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    since_s, place, opened_ms = mark.read()
    bars = series[place] if since_s else None
    where = None if bars is None else Place(symbol=bars.symbol, timeframe=bars.timeframe.value, opened_ms=opened_ms)
    return Ending(died=died, is_slow=slow, place=where)


if __name__ == "__main__":
    main()
