"""What an operator does: take work back, follow it, look for what is wrong, lift a breaker. With real servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.breakers import BreakerRules
from app.domain.jobs import JobKey, Outcome, OutcomeStatus, Signal
from app.domain.strategies import StrategyStatus
from app.errors import ConfigurationError
from app.operations_cancel import cancel_dispatches, cancel_jobs, clear_queue
from app.operations_doctor import State, examine, is_well
from app.operations_queues import read_chunks
from app.operations_trace import UntraceableError, trace
from app.storage import breakers, listings
from app.storage.engine import driver_of
from app.storage.landing import Attempt, land
from app.storage.strategies import load_version, set_status
from tests.integration.stage import Run, Stage
from tests.waiting import wait_until


def outcome(strategy: int, **changes: Any) -> Outcome:
    values: dict[str, Any] = {"status": OutcomeStatus.SUCCEEDED, "signal": Signal(action=1), "queued_ms": 3.0}
    values |= {"strategy_revision": 1, "processing_ms": 0.5, **changes}
    return Outcome(strategy_id=strategy, **values)


def record(stage: Stage, number: int, *outcomes: Outcome, attempts: tuple[Attempt, ...] = ()) -> None:
    with stage.operations.changing() as connection:
        land(driver_of(connection), number, "w", outcomes, attempts, stage.settings.rules)


def is_decided(stage: Stage, number: int) -> bool:
    return bool(stage.ask("SELECT 1 FROM decisions WHERE dispatch_id = :id", id=number))


class TestCancelling:
    def test_a_job_ends_at_once_and_the_last_one_decides(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        (end,) = cancel_jobs(stage.operations, [f"{number}.1"])
        assert (end.strategy, end.status, end.is_news) == ("a", "cancelled", True)
        assert not is_decided(stage, number)
        cancel_jobs(stage.operations, [f"{number}.2"])
        assert is_decided(stage, number)
        assert stage.ask("SELECT state FROM dispatches")[0][0] == "complete"

    def test_twice_changes_nothing(self, stage: Stage) -> None:
        stage.add("a")
        number = stage.write()[0].chunk.dispatch_id
        cancel_jobs(stage.operations, [f"{number}.1", f"{number}.1"])
        before = stage.ask("SELECT * FROM outcomes")
        (end,) = cancel_jobs(stage.operations, [f"{number}.1"])
        assert (end.status, end.is_news) == ("cancelled", False)
        assert stage.ask("SELECT * FROM outcomes") == before

    def test_an_ended_job_keeps_its_outcome_and_a_cancelled_one_too(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        record(stage, number, outcome(1))
        ends = cancel_dispatches(stage.operations, [number])
        record(stage, number, outcome(2))  # it was running, and lands late
        assert {end.strategy: end.status for end in ends} == {"a": "succeeded", "b": "cancelled"}
        assert stage.statuses(number) == {1: "succeeded", 2: "cancelled"}

    def test_an_unknown_job_cancels_nothing(self, stage: Stage) -> None:
        stage.add("a")
        number = stage.write()[0].chunk.dispatch_id
        for wrong in (f"{number}.9", "77.1", "1", "a.b", f"{number}.1.1", "9" * 40 + ".1"):
            with pytest.raises(ConfigurationError):
                cancel_jobs(stage.operations, [f"{number}.1", wrong])
        assert stage.statuses(number) == {}

    def test_a_queue_is_emptied_of_chunks_only(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b"), stage.add("urgent", priority="high")
        sent = stage.write(300)
        stage.publisher.publish(sent)
        stage.push("what is this")
        stranger = stage.raw("high")[0].replace(b'"task": "strategies.execute"', b'"task": "fleet.canary"')
        stage.push(stranger)
        cleared = clear_queue(stage.operations, "normal")
        assert (cleared.messages, cleared.jobs, cleared.kept, cleared.unknown) == (300, 600, 2, 0)
        assert sorted(stage.raw()) == sorted([b"what is this", stranger])
        assert len(stage.raw("high")) == 300
        counted = stage.ask("SELECT status, count(*) FROM outcomes GROUP BY status")
        assert [tuple(row) for row in counted] == [("cancelled", 600)]
        assert clear_queue(stage.operations, "normal").jobs == 0

    def test_a_queue_of_strangers_chunks(self, stage: Stage) -> None:
        stage.add("a")
        stage.publisher.publish(stage.write())
        stage.ask("SELECT 1")
        with stage.operations.changing() as connection:
            connection.execute(text("TRUNCATE dispatches"))
        assert clear_queue(stage.operations, "normal").unknown == 1
        assert not stage.raw()

    def test_queues_tell_their_age(self, stage: Stage) -> None:
        stage.add("a")
        sent = stage.write(2)
        stage.publisher.publish(sent)
        states = {state.queue: state for state in stage.operations.queues.look()}
        assert states["normal"].depth == 2 and states["normal"].oldest_job == sent[0].chunk.task_id
        assert states["high"].oldest_s is None
        read = read_chunks(stage.raw()[-1])
        assert read is not None and read[0].jobs == sent[0].chunk.jobs

    def test_a_running_job_that_travels_alone_is_ended(self, stage: Stage, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        behaviour = "tests.integration.behaviours:Sleeps"
        stage.add("sleeps", behaviour, params={"begun": str(begun)}, timeout_ms=120_000, retries=0)
        with stage.worker(slots=1) as worker:
            sent = stage.write()
            stage.publisher.publish(sent)
            number = sent[0].chunk.dispatch_id
            wait_until(begun.exists, "the job runs")
            cancel_jobs(stage.operations, [f"{number}.1"])
            assert stage.statuses(number) == {1: "cancelled"}
            wait_until(lambda: stage.unacked() == 0, "its message is gone", 15)
            set_active(stage, "sleeps", StrategyStatus.PAUSED)
            stage.add("good")
            again = stage.write()
            stage.publisher.publish(again)
            wait_until(lambda: stage.statuses(again[0].chunk.dispatch_id), "the slot is free for others", 15)
            assert worker.is_alive()
        assert stage.statuses(number) == {1: "cancelled"}
        assert not stage.ask("SELECT 1 FROM attempts") and not stage.ask("SELECT 1 FROM breakers")

    def test_a_running_job_in_a_chunk_leaves_its_neighbours_alone(self, stage: Stage, tmp_path: Path) -> None:
        begun = tmp_path / "begun"
        behaviour = "tests.integration.behaviours:Sleeps"
        stage.add("sleeps", behaviour, params={"begun": str(begun)}, timeout_ms=2_000, retries=0)
        stage.add("good")
        with stage.worker(slots=1):
            sent = stage.write()
            assert len(sent) == 1
            stage.publisher.publish(sent)
            number = sent[0].chunk.dispatch_id
            wait_until(begun.exists, "the job runs")
            cancel_jobs(stage.operations, [f"{number}.1"])
            wait_until(lambda: is_decided(stage, number), "the neighbour lands", 15)
        assert stage.statuses(number) == {1: "cancelled", 2: "succeeded"}
        assert not stage.ask("SELECT 1 FROM breakers")


def set_active(stage: Stage, name: str, status: StrategyStatus) -> None:
    stage.operations.set_status(name, status)


class TestFollowing:
    def test_the_story_of_a_dispatch_by_any_of_its_ids(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b"), stage.add("c")
        number = stage.write()[0].chunk.dispatch_id
        attempt = Attempt(2, 0, OutcomeStatus.FAILED, "ValueError", "first\nsecond", 1.0)
        record(stage, number, outcome(1), attempts=(attempt,))
        failed = {"status": OutcomeStatus.FAILED, "signal": None, "error_class": "ValueError", "error": "again"}
        record(stage, number, outcome(2, attempt=1, **failed))
        cancel_jobs(stage.operations, [f"{number}.3"])
        story = trace(stage.operations, str(number))
        kinds = [event.what for event in story.events]
        assert kinds[:4] == ["candle", "dispatched", "published", "landed"]
        assert sorted(kinds[4:]) == ["attempt", "breaker", "completed", "decided", "landed", "landed"]
        assert [event.at for event in story.events] == sorted(event.at for event in story.events)
        assert story.missing == [] and story.state == "complete"
        assert trace(stage.operations, story.correlation_id) == story
        assert [(each.priority, each.strategies, each.reason) for each in story.chunks] == [
            ("normal", ["a", "b", "c"], "cheap and healthy")
        ]
        (told,) = [event for event in story.events if event.what == "attempt"]
        assert "attempt 1 failed" in told.detail and "ValueError: first; tried again" in told.detail

    def test_the_story_of_a_job_leaves_the_others_out(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        record(stage, number, outcome(1), outcome(2))
        story = trace(stage.operations, f"{number}.2")
        assert {event.who for event in story.events} == {"", "b"}
        (started,) = [event for event in story.events if event.what == "started"]
        assert 0 < started.after_ms <= 3.01  # as measured, and never after the job has ended

    def test_what_has_not_landed_is_named(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        record(stage, number, outcome(2))
        assert trace(stage.operations, str(number)).missing == ["a"]

    def test_a_late_outcome_is_marked(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        record(stage, number, outcome(1))
        with stage.operations.changing() as connection:
            values = f"({number}, 1, 1, 0.5, ARRAY[2], 'deadline', 1)"
            columns = "(dispatch_id, action, score, weight_heard, missing, closed_by, latency_ms)"
            connection.execute(text(f"INSERT INTO decisions {columns} VALUES {values}"))
        record(stage, number, outcome(2))
        events = trace(stage.operations, str(number)).events
        assert [event.who for event in events if event.is_late] == ["b"]

    @pytest.mark.parametrize("unknown", ["77", "77.1", "0" * 32, "9" * 18])
    def test_an_unknown_id(self, stage: Stage, unknown: str) -> None:
        with pytest.raises(UntraceableError):
            trace(stage.operations, unknown)

    @pytest.mark.parametrize("nonsense", ["", "x", "1.", "1.2.3", "-4", "9" * 25, "0" * 31 + "g"])
    def test_no_id_at_all(self, stage: Stage, nonsense: str) -> None:
        with pytest.raises(ConfigurationError):
            trace(stage.operations, nonsense)

    def test_outcomes_and_attempts_by_correlation(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        first, second = (stage.write()[0].chunk for _ in range(2))
        attempt = Attempt(2, 0, OutcomeStatus.FAILED, "ValueError", "no", 1.0)
        for chunk in (first, second):
            record(stage, chunk.dispatch_id, outcome(1), attempts=(attempt,))
        with stage.operations.reading() as connection:
            wanted = first.correlation_id
            found = [
                load(connection, limit=9, correlation=wanted)
                for load in (listings.list_outcomes, listings.list_attempts)
            ]
        assert [[row["dispatch_id"] for row in rows] for rows in found] == [[first.dispatch_id]] * 2
        assert {row["correlation_id"] for rows in found for row in rows} == {first.correlation_id}

    def test_every_line_of_a_slot_about_a_chunk_carries_the_ids(self, stage: Stage) -> None:
        stage.add("loud", "tests.integration.behaviours:Loud", retries=0)
        with stage.worker(slots=1) as worker:
            sent = stage.write()
            stage.publisher.publish(sent)
            chunk = sent[0].chunk
            wait_until(lambda: stage.statuses(chunk.dispatch_id), "it lands")
            wait_until(lambda: "job failed" in worker.log(), "it is logged")
            lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
        about = [line for line in lines if line["event"] in ("about to fail", "job failed")]
        assert len(about) == 2
        for line in about:
            assert (line["correlation"], line["dispatch"]) == (chunk.correlation_id, chunk.dispatch_id)


class TestStrays:
    def test_a_strategy_that_the_dispatch_does_not_ask_records_nothing(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        stage.add("newcomer")
        with pytest.raises(Exception, match=r"found also \[3\]"):
            record(stage, number, outcome(1), outcome(3))
        assert stage.statuses(number) == {}
        assert stage.ask("SELECT landed FROM dispatches")[0][0] == 0


class TestDoctor:
    def found(self, stage: Stage) -> dict[str, State]:
        worst: dict[str, State] = {}
        for check in examine(stage.settings):
            if worst.get(check.check) is not State.PROBLEM and check.state is not State.OK:
                worst[check.check] = check.state
            assert check.advice or check.state is State.OK
        return worst

    def test_an_idle_deployment(self, stage: Stage) -> None:
        stage.add("a")
        stage.write()
        assert self.found(stage) == {"maintenance": State.WARNING, "workers": State.WARNING}

    def test_everything_that_can_be_wrong(self, stage: Stage) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        with stage.operations.changing() as connection:
            for change in (
                "UPDATE dispatches SET expires_at = now() - interval '1 hour', correlation_id = ''",
                "INSERT INTO breakers (strategy_id, state) VALUES (1, 'open')",
                "UPDATE strategies SET status = 'quarantined' WHERE id = 2",
                "INSERT INTO dead_letters (reason, body, worker) VALUES ('r', 'b', 'w')",
                "INSERT INTO nodes (node, queues, slots, overdue, started_at, seen_at)"
                " VALUES ('stuck', ARRAY['high'], 1, ARRAY['1.1'], now(), now() + interval '1 hour')",
                "INSERT INTO nodes (node, queues, slots, canary_sent_at, started_at, seen_at)"
                " VALUES ('deaf', ARRAY['low'], 1, now() - interval '1 hour', now(), now() + interval '1 hour')",
                "INSERT INTO nodes (node, queues, slots, started_at, seen_at)"
                " VALUES ('gone', ARRAY['low'], 1, now(), now() - interval '1 hour')",
            ):
                connection.execute(text(change))
        checks = examine(stage.settings)
        said = "\n".join(f"{check.state} {check.found}" for check in checks)
        for expected in (
            f"problem 1 past their expiry, the oldest is {number}",
            "warning not closed: a",
            "warning killed slots: b",
            "warning 1, the newest",
            "problem stuck runs past the hard limit: 1.1",
            "problem deaf beats but has not answered since 60 minutes ago",
            "warning gone was last seen 60 minutes ago",
            "problem nobody consumes control, normal",
            "problem 1 dispatches have no correlation id",
        ):
            assert expected in said
        assert not is_well(checks)

    def test_a_full_and_late_queue(self, stage: Stage) -> None:
        stage.add("a")
        chunk = stage.write()[0]
        late = chunk.chunk.model_copy(update={"created_at": datetime.now(UTC) - timedelta(hours=1)})
        stage.publisher.publish([type(chunk)(late, None, "", 1.0)] * 100)
        (queues,) = [check for check in examine(stage.settings) if check.check == "queues"]
        assert "normal is full: 100 of 100" in queues.found and "dispatched 3,600 s ago" in queues.found

    def test_missing_partition(self, stage: Stage) -> None:
        with stage.operations.changing() as connection:
            connection.execute(text("ALTER SEQUENCE dispatches_id_seq RESTART WITH 100000000"))
            opened = "'A', '1h', now(), 0, '{1}', '{1}', '{1}', 1, now(), now(), 'c'"
            columns = "symbol, timeframe, open_time, revision, strategy_ids, strategy_revisions, weights, expected"
            more = "deadline, expires_at, correlation_id"
            connection.execute(text(f"INSERT INTO dispatches ({columns}, {more}) VALUES ({opened})"))
        assert self.found(stage)["partitions"] is State.PROBLEM

    def test_servers_that_are_away(self, stage: Stage) -> None:
        away = {"database_url": "postgresql://x@127.0.0.1:1/x", "broker_url": "redis://127.0.0.1:1/0"}
        settings = type(stage.settings).model_validate({**stage.settings.model_dump(), **away})
        assert {check.check: check.state for check in examine(settings)} == {
            "postgres": State.PROBLEM,
            "redis": State.PROBLEM,
        }


class TestBreakers:
    def trip(self, stage: Stage, number: int) -> None:
        with stage.operations.changing() as connection:
            for _ in range(3):
                breakers.record_crash(driver_of(connection), number, BreakerRules(crashes=3))

    def test_resume_lifts_everything(self, stage: Stage) -> None:
        number = stage.add("a")
        self.trip(stage, number)
        status = stage.operations.status()
        assert status["quarantined"] == ["a"]
        assert [(row["name"], row["state"], row["crashes"]) for row in status["breakers"]] == [("a", "open", 3)]
        stage.operations.set_status("a", StrategyStatus.ACTIVE)
        status = stage.operations.status()
        assert status["quarantined"] == [] and status["breakers"] == []

    def test_resume_of_an_active_strategy_bumps_the_catalogue(self, stage: Stage) -> None:
        stage.add("a")
        with stage.operations.reading() as connection:
            before = load_version(connection)
        stage.operations.set_status("a", StrategyStatus.ACTIVE)
        with stage.operations.reading() as connection:
            assert load_version(connection) > before

    def test_pausing_holds_the_breaker(self, stage: Stage) -> None:
        number = stage.add("a")
        self.trip(stage, number)
        with stage.operations.changing() as connection:
            set_status(connection, "a", StrategyStatus.PAUSED)
            assert [row["crashes"] for row in breakers.list_breakers(connection)] == [3]


class TestCommandLine:
    def test_cancel_and_trace(self, stage: Stage, run: Run) -> None:
        stage.add("a"), stage.add("b")
        number = stage.write()[0].chunk.dispatch_id
        ended = json.loads(run("jobs", "cancel", f"{number}.1", "--json").stdout)
        assert [(end["status"], end["is_news"]) for end in ended] == [("cancelled", True)]
        said = run("jobs", "cancel", f"{number}.1")
        assert said.exit_code == 0 and "1 had ended before" in said.output
        assert run("dispatches", "cancel", number).exit_code == 0
        story = json.loads(run("trace", number, "--json").stdout)
        assert story["dispatch_id"] == number and story["events"][-1]["what"] in ("decided", "completed")
        assert "cancelled: taken back by an operator" in run("trace", f"{number}.2").stdout
        assert isinstance(run("trace", 99).exception, UntraceableError)
        assert isinstance(run("jobs", "cancel", "1-2").exception, ConfigurationError)

    def test_dispatches_lists_and_shows(self, stage: Stage, run: Run) -> None:
        stage.add("a")
        chunk = stage.write(2)[0].chunk
        rows = json.loads(run("dispatches", "--state", "open", "--json").stdout)
        assert [row["id"] for row in rows] == [2, 1]
        rows = json.loads(run("dispatches", "--correlation", chunk.correlation_id, "--json").stdout)
        assert [row["id"] for row in rows] == [chunk.dispatch_id]
        assert json.loads(run("dispatches", "show", 2, "--json").stdout)["missing"] == ["a"]
        assert run("dispatches", "cancel", "x").exit_code == 2

    def test_queues(self, stage: Stage, run: Run) -> None:
        stage.add("a")
        stage.publisher.publish(stage.write())
        rows = json.loads(run("queues", "list", "--json").stdout)
        assert [(row["queue"], row["depth"]) for row in rows][:3] == [("control", 0), ("high", 0), ("normal", 1)]
        assert isinstance(run("queues", "clear", "normal").exception, ConfigurationError)
        assert isinstance(run("queues", "clear", "control", "--yes").exception, ConfigurationError)
        assert json.loads(run("queues", "clear", "normal", "--yes", "--json").stdout)["jobs"] == 1

    def test_doctor(self, stage: Stage, run: Run) -> None:
        with stage.operations.changing() as connection:
            connection.execute(text("INSERT INTO dead_letters (reason, body, worker) VALUES ('why', 'what', 'w')"))
        said = run("doctor", "--letters", 3, "--json")
        document = json.loads(said.stdout)
        assert said.exit_code == 0 and document["is_well"]
        assert [letter["reason"] for letter in document["letters"]] == ["why"]
        with stage.operations.changing() as connection:
            connection.execute(text("UPDATE dead_letters SET reason = 'why'"))
            connection.execute(text("INSERT INTO breakers (strategy_id, state) VALUES (1, 'open')"))
        assert run("doctor").exit_code == 0

    def test_doctor_of_wrong_settings(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CANDLEFLEET_WORKER__SLOTS", "many")
        said = run("doctor", "--json")
        assert said.exit_code == 1
        assert json.loads(said.stdout)["checks"][0]["state"] == "problem"

    def test_strategies(self, stage: Stage, run: Run) -> None:
        stage.add("a")
        with stage.operations.changing() as connection:
            breakers.record_crash(driver_of(connection), 1, BreakerRules(crashes=1))
        (row,) = json.loads(run("strategies", "list", "--json").stdout)
        assert (row["breaker"], row["crashes"], row["status"]) == ("open", 1, "quarantined")
        assert json.loads(run("strategies", "show", "a", "--json").stdout)["breaker"] == "open"
        assert "a is open until" in run("status").stdout
        assert run("strategies", "resume", "a").exit_code == 0
        (row,) = json.loads(run("strategies", "list", "--json").stdout)
        assert (row["breaker"], row["crashes"], row["status"]) == ("closed", 0, "active")
        assert run("strategies", "unload", "a").exit_code == 0
        assert json.loads(run("strategies", "list", "--json").stdout)[0]["status"] == "unloaded"


def test_keys_carry_the_prefix(stage: Stage) -> None:
    stage.add("a")
    before = set(stage.redis.scan_iter("*"))
    stage.publisher.publish(stage.write())
    assert {key.decode() for key in set(stage.redis.scan_iter("*")) - before} == {f"{stage.prefix}normal"}
    assert JobKey(1, 1) in (read_chunks(stage.raw()[0]) or pytest.fail("no chunk"))[0].jobs
