"""Revoking a job's id takes back that job alone, wherever it is; with a real node and Celery's own commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from celery import Celery
from celery.worker import state

from app.broker import create_celery
from app.domain.jobs import read_job_id
from app.operations_cancel import cancel_jobs
from tests.integration.stage import REPOSITORY, Stage, Worker
from tests.listening import listening
from tests.waiting import wait_until
from workers.requests import hear_revocations
from workers.shared import MOST_REVOKED, Revoked


@pytest.fixture
def celery(stage: Stage) -> Celery:
    return create_celery(stage.settings)


class Gate(NamedTuple):
    """A strategy that waits: how to see that it runs, and how to let it go on."""

    begun: Path
    go: Path

    @property
    def params(self) -> dict[str, str]:
        return {"begun": str(self.begun), "go": str(self.go)}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "begun", tmp_path / "go")


def add_waiting(stage: Stage, gate: Gate) -> int:
    waits = "tests.integration.behaviours:Waits"
    return stage.add("waits", waits, params=gate.params, timeout_ms=120_000, retries=0)


@contextmanager
def held_up(stage: Stage, gate: Gate, count: int) -> Iterator[tuple[Worker, list[int]]]:
    """Run a node whose one slot waits in the first of some dispatches; the others wait behind it, each alone."""
    with stage.worker(slots=1) as worker:
        have_quick_ones(stage, gate)
        sent = stage.write(count)
        stage.publisher.publish(sent)
        wait_until(gate.begun.exists, "the first job runs")
        # one more message is prefetched, the others wait in Redis
        wait_until(lambda: (stage.unacked(), len(stage.raw())) == (2, count - 2), "the node holds two messages")
        yield worker, [each.chunk.dispatch_id for each in sent]


def have_quick_ones(stage: Stage, gate: Gate) -> None:
    """Let the node see that messages are quick: while they are slow it holds none ahead of a free slot."""
    gate.go.touch()
    quick = stage.write(16)
    stage.publisher.publish(quick)
    last = quick[-1].chunk.dispatch_id
    wait_until(lambda: stage.statuses(last) and stage.unacked() == 0, "the quick ones have ended")
    gate.go.unlink()
    gate.begun.unlink()


def slots(worker: Worker) -> set[int]:
    return {slot.pid for slot in psutil.Process(worker.process.pid).children()}


def await_statuses(stage: Stage, expected: dict[int, dict[int, str]]) -> None:
    wait_until(
        lambda: {number: stage.statuses(number) for number in expected} == expected, f"all end as {expected}", 20
    )


def cancelled_as(stage: Stage) -> set[Any]:
    rows = stage.ask("SELECT error_class, error, attempt FROM outcomes WHERE status = 'cancelled'")
    return {tuple(row) for row in rows}


@pytest.mark.parametrize("terminate", [False, True])
def test_jobs_that_wait_in_redis_and_in_the_node_are_not_run(
    stage: Stage, gate: Gate, celery: Celery, terminate: bool
) -> None:
    add_waiting(stage, gate)
    with held_up(stage, gate, 4) as (worker, (first, prefetched, queued, last)):
        before = slots(worker)
        celery.control.revoke([f"{prefetched}.1", f"{queued}.1"], terminate=terminate, signal="SIGKILL")
        wait_until(lambda: f"{queued}.1" in worker.log() or "Terminating" in worker.log(), "the node is told")
        gate.go.touch()
        done, back = {1: "succeeded"}, {1: "cancelled"}
        await_statuses(stage, {first: done, prefetched: back, queued: back, last: done})
        assert cancelled_as(stage) == {("Cancelled", "taken back by an operator", 0)}
        wait_until(lambda: stage.unacked() == 0, "all messages are acknowledged")
        assert slots(worker) == before


@pytest.mark.parametrize("terminate", [False, True])
def test_a_job_in_a_chunk_that_runs_is_not_begun_and_its_neighbours_land(
    stage: Stage, gate: Gate, celery: Celery, terminate: bool
) -> None:
    add_waiting(stage, gate)
    stage.add("taken-back"), stage.add("stays")
    with stage.worker(slots=1) as worker:
        sent = stage.write()
        stage.publisher.publish(sent)
        number = sent[0].chunk.dispatch_id
        assert len(sent[0].chunk.jobs) == 3
        wait_until(gate.begun.exists, "the first job of the chunk runs")
        before = slots(worker)
        celery.control.revoke(f"{number}.2", terminate=terminate, signal="SIGKILL", reply=True, timeout=2.0)
        gate.go.touch()
        await_statuses(stage, {number: {1: "succeeded", 2: "cancelled", 3: "succeeded"}})
        assert slots(worker) == before
    assert not stage.ask("SELECT 1 FROM attempts") and not stage.ask("SELECT 1 FROM breakers")


def test_a_job_that_runs_alone_is_ended_with_its_slot_and_recorded_at_once(
    stage: Stage, gate: Gate, celery: Celery
) -> None:
    add_waiting(stage, gate)
    with held_up(stage, gate, 3) as (worker, (first, *others)), listening(stage.settings) as listener:
        (before,) = slots(worker)
        celery.control.revoke(f"{first}.1", terminate=True)  # Celery's own signal, SIGTERM
        wait_until(lambda: not psutil.pid_exists(before), "the slot is ended")
        gate.go.touch()
        # no maintenance runs here
        await_statuses(stage, {first: {1: "cancelled"}} | {number: {1: "succeeded"} for number in others})
        assert listener.await_task(f"{first}.1", "REVOKED").name == "waits"
        wait_until(lambda: stage.unacked() == 0, "all messages are acknowledged")
        assert worker.is_alive()
    assert not stage.ask("SELECT 1 FROM attempts") and not stage.ask("SELECT 1 FROM breakers")


def test_our_own_command_and_celerys_do_the_same(stage: Stage, gate: Gate) -> None:
    add_waiting(stage, gate)
    with held_up(stage, gate, 4) as (_, (first, one, other, last)):
        cancel_jobs(stage.operations, [f"{one}.1"])
        assert stage.statuses(one) == {1: "cancelled"}
        command = [sys.executable, "-m", "celery", "-A", "workers.main", "control", "revoke", f"{other}.1"]
        done = subprocess.run(command, cwd=REPOSITORY, env=stage.environment, capture_output=True, text=True)
        assert done.returncode == 0 and f"{other}.1" in done.stdout, done.stderr
        gate.go.touch()
        ended, back = {1: "succeeded"}, {1: "cancelled"}
        await_statuses(stage, {first: ended, one: back, other: back, last: ended})


def test_a_job_that_is_out_of_date_is_recorded_as_such_and_not_as_cancelled(stage: Stage) -> None:
    stage.add("late")
    (sent,) = stage.write()
    past = datetime.now(UTC) - timedelta(seconds=1)
    late = sent.chunk.model_copy(update={"expires_at": past})
    with stage.worker(slots=1), listening(stage.settings) as listener:
        stage.publisher.publish([type(sent)(late, sent.label, sent.arguments, sent.hard_limit_s)])
        await_statuses(stage, {late.dispatch_id: {1: "expired"}})
        listener.await_task(f"{late.dispatch_id}.1", "REVOKED")
        assert listener.events()[-1]["expired"] is True


def test_slots_hear_whoever_told_celery() -> None:
    revoked = Revoked()
    before = list(state.revoked)
    state.revoked.clear()
    hear_revocations(revoked)
    try:
        state.merge_revoked(["7.1", "7.2", "not-a-job", "7.1+3"])  # what other nodes say when this one starts
        state.revoked.update({"8.1"})  # what a control command says
        assert [revoked.has(*job) for job in ((7, 1), (7, 2), (8, 1))] == [True] * 3
        assert not revoked.has(7, 3) and not revoked.has(1, 7)
        for number in range(MOST_REVOKED - 1):
            revoked.add(100, number)
            state.merge_revoked(["8.1"])  # told again: it is no younger for that
        assert revoked.has(8, 1) and not revoked.has(7, 2)
    finally:
        del state.revoked.add
        state.revoked.clear()
        state.revoked.update(before)


@pytest.mark.parametrize("text", ["12.3+4", "12", "12.", ".3", "12.3.4", "a.b", "12.3\n", " 12.3", "9" * 19 + ".1"])
def test_what_names_no_job(text: str) -> None:
    assert read_job_id(text) is None
