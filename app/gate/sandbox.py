"""The sandbox: verifies and replays strategies in processes apart from this one, with limits, and says how it went.

User code never runs here: ``python -m app.gate`` imports it, in a child for each strategy, without the deployment's
passwords in its environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from app.domain.candles import Timeframe
from app.errors import CandlefleetError
from app.gate.markets import LIVELY, generate_markets, on_timeframe
from app.gate.wire import Answer, Case, Ending, Mode, Request, TwinAnswers, pack
from app.processes import die_with_parent
from app.settings import PREFIX
from app.strategies.bars import Bars
from app.strategies.verification.report import Check, Reason, Report, build_finding

#: Seconds for one strategy, and for what comes with all of them. A strategy of 100 ms a window takes about 20.
CASE_LIMIT_S, START_LIMIT_S = 120.0, 60.0

#: Seconds an evaluation may run past its limit before its process is killed: C code does not hear the timer.
GRACE_S = 2.0

#: Seeds of the order of sets of texts: what depends on it differs between the two.
_SEEDS = ("1", "2")


class GateError(CandlefleetError):
    """The gate itself failed; nothing is known about the strategy."""


def verify_all(
    cases: Sequence[Case],
    stored: Sequence[Bars],
    prefixes: Sequence[str],
    window: int,
    timeframe: Timeframe = Timeframe.H1,
) -> list[Report]:
    """Verify strategies, one after another, each in processes of its own.

    Args:
        cases: the strategies.
        stored: candles to verify on beside the generated markets.
        prefixes: allow-listed module prefixes.
        window: candles of a worker's window.
        timeframe: of the generated markets' candles.

    Raises:
        GateError: the gate's own process failed.
    """
    series = (*on_timeframe(generate_markets(), timeframe), *stored)
    request = Request(mode=Mode.TWIN, prefixes=tuple(prefixes), window=window, cases=tuple(cases), lively=LIVELY)
    twin, gate = (_start(seed) for seed in _SEEDS)
    with twin, gate:
        try:
            twins = [_twin(ending) for ending in _ask(twin, request, series)]
            request = request.model_copy(update={"mode": Mode.VERIFY, "twins": tuple(twins)})
            endings = _ask(gate, request, series)
        finally:
            for process in (twin, gate):
                _kill(process)
    return [_report(case, ending) for case, ending in zip(cases, endings, strict=True)]


def replay_all(cases: Sequence[Case], bars: Bars, prefixes: Sequence[str]) -> list[Answer]:
    """Ask strategies about the last candle of a window, each in a process of its own.

    Raises:
        GateError: the gate's own process failed.
    """
    request = Request(mode=Mode.REPLAY, prefixes=tuple(prefixes), window=len(bars), cases=tuple(cases))
    with _start(_SEEDS[0]) as process:
        try:
            endings = _ask(process, request, [bars])
        finally:
            _kill(process)
    return [_answer(ending) for ending in endings]


def _start(seed: str) -> subprocess.Popen[bytes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment = {
        **own,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": seed,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot be forked safely
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "app.gate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=partial(die_with_parent, signal.SIGKILL),
    )


def _ask(process: subprocess.Popen[bytes], request: Request, series: Sequence[Bars]) -> list[Ending]:
    limit_s = START_LIMIT_S + CASE_LIMIT_S * len(request.cases)
    try:
        out, err = process.communicate(pack(request, series), limit_s)
    except subprocess.TimeoutExpired as error:
        raise GateError(f"the gate did not end within {limit_s:g} s") from error
    if process.returncode:
        raise GateError(f"the gate failed with exit code {process.returncode}: {err.decode(errors='replace')[-2000:]}")
    return [Ending.model_validate(each) for each in json.loads(out)]


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _twin(ending: Ending) -> TwinAnswers | None:
    # what ends a twin ends the verification as well, which tells more about it
    return TwinAnswers.model_validate(ending.answer) if ending.answer else None


def _report(case: Case, ending: Ending) -> Report:
    if ending.answer is not None:
        return Report.model_validate(ending.answer)
    expected, found = "an answer from its process", f"its process ended with {ending.died}"
    reason = Reason.DIED
    if ending.is_slow:
        expected, found = f"an answer within {case.limits.timeout_ms} ms (limits.timeout_ms)", "none; it was ended"
        reason = Reason.SLOW
    finding = build_finding(Check.COST, reason, expected, found, **_place(ending))
    return Report(strategy=case.name, passed=False, finding=finding)


def _place(ending: Ending) -> dict[str, str | None]:
    if ending.place is None:
        return {}
    opened = datetime.fromtimestamp(ending.place.opened_ms / 1000, UTC).isoformat()
    return {"symbol": ending.place.symbol, "timeframe": ending.place.timeframe, "time": opened}


def _answer(ending: Ending) -> Answer:
    if ending.answer is None:
        return Answer(error=f"its process ended with {ending.died}")
    return Answer.model_validate(ending.answer)
