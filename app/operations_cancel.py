"""Cancelling: jobs, dispatches, and everything that waits in a queue.

The ledger is changed first: from then on no result of a cancelled job counts, whoever still works on it. Telling
the nodes only saves them the work: a job that has not begun is not run, wherever it waits. One that travels alone
and runs is ended with its slot; a chunk has neighbours, so a job that runs inside one ends at its soft limit at the
latest, and its result is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from app.broker import QUEUES
from app.domain.jobs import Chunk, JobKey, job_id, read_job_id
from app.errors import BrokerUnavailableError, ConfigurationError, did_you_mean
from app.operations import Operations
from app.operations_queues import Queues, read_chunks
from app.storage.cancellation import Ended, cancel, describe, load_expected

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cleared:
    """What became of a queue that was emptied."""

    queue: str
    messages: int
    """Messages of jobs that were removed."""
    jobs: int
    """Their jobs that were cancelled; the others had ended already."""
    kept: int
    """Messages that carry no chunk: put back, for a worker to refuse."""
    unknown: int
    """Chunks of dispatches that the ledger does not hold: removed."""


def cancel_jobs(operations: Operations, ids: Sequence[str]) -> list[Ended]:
    """Cancel jobs; one that has ended keeps its outcome. Idempotent.

    Args:
        operations: of the deployment.
        ids: ``<dispatch>.<strategy>`` each.

    Raises:
        ConfigurationError: an id is malformed or there is no such job; nothing was cancelled.
        StorageUnavailableError: Postgres is away.
    """
    asked: dict[int, list[int]] = {}
    for text in dict.fromkeys(ids):
        dispatch_id, strategy_id = parse_job_id(text)
        asked.setdefault(dispatch_id, []).append(strategy_id)
    with operations.reading() as connection:
        expected = load_expected(connection, asked)
    _require(dispatch_id for dispatch_id in asked if dispatch_id not in expected)
    wanted = {number: _pick(number, expected[number], strategies) for number, strategies in sorted(asked.items())}
    ends = _end(operations, wanted)
    _tell(operations.queues, [end.job for end in ends if end.is_news])
    return ends


def cancel_dispatches(operations: Operations, ids: Sequence[int]) -> list[Ended]:
    """Cancel every job of some dispatches that has not ended; they are decided by what has landed. Idempotent.

    Raises:
        ConfigurationError: there is no such dispatch; nothing was cancelled.
        StorageUnavailableError: Postgres is away.
    """
    with operations.reading() as connection:
        expected = load_expected(connection, set(ids))
    _require(dispatch_id for dispatch_id in ids if dispatch_id not in expected)
    ends = _end(operations, {number: expected[number] for number in sorted(expected)})
    _tell(operations.queues, [end.job for end in ends if end.is_news])
    return ends


def clear_queue(operations: Operations, queue: str) -> Cleared:
    """Cancel every job that waits in a queue now, and remove its message.

    Raises:
        ConfigurationError: there is no such queue of jobs.
        BrokerUnavailableError, StorageUnavailableError: a server is away. What was taken off the queue by then and
            is not in the ledger is sent again by maintenance.
    """
    require_queue(queue)
    messages = jobs = kept = unknown = 0
    for batch in operations.queues.take(queue):
        carried = [(raw, read_chunks(raw)) for raw in batch]
        foreign = [raw for raw, chunks in carried if chunks is None]
        operations.queues.put_back(queue, foreign)
        cancelled, lost = _end_chunks(operations, [chunk for _, chunks in carried for chunk in chunks or ()])
        messages += len(batch) - len(foreign)
        jobs, kept, unknown = jobs + cancelled, kept + len(foreign), unknown + lost
    return Cleared(queue, messages, jobs, kept, unknown)


def parse_job_id(text: str) -> tuple[int, int]:
    """Read a job's id.

    Raises:
        ConfigurationError: it is not one.
    """
    found = read_job_id(text)
    if found is None:
        raise ConfigurationError(f"expected a job as <dispatch>.<strategy>, such as 1042.7, found {text!r}")
    return found


def require_queue(queue: str) -> None:
    """Check the name of a queue of jobs.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if queue not in QUEUES:
        raise ConfigurationError(f"no queue {queue!r}: {did_you_mean(queue, QUEUES)}")


def _require(unknown: Iterable[int]) -> None:
    missing = sorted(set(unknown))
    if missing:
        known = "see 'candlefleet dispatches'"
        raise ConfigurationError(f"expected dispatches of the ledger, found no {', '.join(map(str, missing))}: {known}")


def _pick(dispatch_id: int, expected: Sequence[JobKey], strategies: Sequence[int]) -> list[JobKey]:
    keys = {key.strategy_id: key for key in expected}
    for number in strategies:
        if number not in keys:
            jobs = ", ".join(job_id(dispatch_id, known) for known in list(keys)[:20])
            raise ConfigurationError(f"dispatch {dispatch_id} has no job {job_id(dispatch_id, number)}: it has {jobs}")
    return [keys[number] for number in strategies]


def _end(operations: Operations, wanted: Mapping[int, Sequence[JobKey]]) -> list[Ended]:
    ends = {}
    for dispatch_id, jobs in wanted.items():
        # a transaction each: a worker that lands a job of another dispatch never waits for this one
        with operations.changing() as connection:
            ends[dispatch_id] = cancel(connection, dispatch_id, jobs, operations.settings.rules)
    with operations.reading() as connection:
        return describe(connection, ends)


def _end_chunks(operations: Operations, chunks: Sequence[Chunk]) -> tuple[int, int]:
    cancelled = unknown = 0
    with operations.reading() as connection:
        expected = load_expected(connection, {chunk.dispatch_id for chunk in chunks})
    for chunk in chunks:
        asked = [key for key in chunk.jobs if key in expected.get(chunk.dispatch_id, ())]
        if not asked:
            unknown += 1
            continue
        with operations.changing() as connection:
            ends = cancel(connection, chunk.dispatch_id, asked, operations.settings.rules)
        cancelled += sum(is_news for _, _, is_news in ends)
    return cancelled, unknown


def _tell(queues: Queues, jobs: Sequence[str]) -> None:
    """Tell the nodes; that they cannot be told changes no outcome."""
    try:
        queues.revoke(jobs)
    except BrokerUnavailableError as error:
        log.warning("cancelled in the ledger, but the nodes could not be told", reason=str(error))
