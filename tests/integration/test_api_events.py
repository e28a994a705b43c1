"""The events of a run over a real node: they arrive, they can be taken up again, and nobody's going away matters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from app import embedded
from app.settings import Settings
from app.storage.candles import record_candles
from tests.building import definition, register, walk
from tests.cluster import WorkerProcess
from tests.integration.api import SPEC, Api, let_in, serving
from tests.integration.ledger import rows
from tests.waiting import wait_until


@pytest.fixture
def api(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Api]:
    register(engine, definition("cross"))
    with engine.begin() as connection:
        record_candles(connection, walk("AAA", 1500), "test")
    with serving(settings, tmp_path, API__STREAMS="60", DATABASE_POOL="2") as api:
        yield api


@pytest.fixture
def node(settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess("events", settings, tmp_path / "worker.log", queues="batch")
    yield process
    process.teardown()


def test_a_run_is_watched_to_its_end(api: Api, settings: Settings, tmp_path: Path) -> None:
    run = api.start(grid={"fast": list(range(3, 13))})
    with api.watch(run) as stream:
        events = stream.events()
        first = next(events)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (first.name, first.data["run"], first.data["ended"]) == ("progress", run, 0)
        node = WorkerProcess("events", settings, tmp_path / "worker.log", queues="batch")
        try:
            seen = [first, *events]
        finally:
            node.teardown()
    end = seen[-1]
    assert (end.name, end.data["state"], end.data["succeeded"]) == ("end", "complete", 10)
    assert [event.name for event in seen[:-1]] == ["progress"] * (len(seen) - 1)
    ended = [event.data["ended"] for event in seen]
    assert ended == sorted(ended)
    assert len({event.id for event in seen}) == len(seen)
    assert end.id is not None
    assert api.get(f"/api/runs/{run}/events", Last_Event_ID=end.id).status == 204


def test_a_run_is_reported_on_and_its_selection_is_told(api: Api, node: WorkerProcess) -> None:
    backtest = api.start(grid={"fast": [3, 4]})
    latest = {name: value for name, value in SPEC.items() if name != "from"}
    wanted = {**latest, "kind": "evaluate", "selection": {"min_edge_percent": 0.001}}
    evaluated = api.post("/api/runs", wanted).body["id"]
    for run in (backtest, evaluated):
        with api.watch(run) as stream:
            assert [*stream.events()][-1].data["state"] == "complete"
    document = api.get(f"/api/runs/{backtest}/report").body
    assert (document["run"]["succeeded"], len(document["units"])) == (2, 2)
    assert api.get(f"/api/runs/{backtest}/units").body[0]["metrics"] == document["units"][0]["metrics"]
    unit = document["units"][0]
    trades = api.get(f"/api/runs/{backtest}/units/{unit['id']}/trades?limit=1000").body
    assert len(trades) == unit["metrics"]["trades"]
    assert api.get(f"/api/runs/{backtest}/units/{unit['id']}/trades?limit=2&offset=1").body == trades[1:3]
    assert api.get(f"/api/runs/{backtest}/units/99/trades").status == 404
    assert "which has no trades" in api.get(f"/api/runs/{evaluated}/units/0/trades").body["detail"]
    told = api.get(f"/api/runs/{evaluated}/selection").body
    (unit,) = api.get(f"/api/runs/{evaluated}/units").body
    assert [row["symbol"] for row in (*told["selected"], *told["rejected"])] == [unit["symbol"]] == ["AAA"]
    assert api.get(f"/api/runs/{backtest}/selection").status == 422


def test_who_comes_back_is_not_told_the_same_again(api: Api) -> None:
    run = api.start()
    api.post(f"/api/runs/{run}/pause")
    with api.watch(run) as stream:
        last = next(stream.events())
    assert last.id is not None
    with api.watch(run, Last_Event_ID=last.id) as stream:
        api.post(f"/api/runs/{run}/resume")
        after = next(stream.events())
    assert (last.data["state"], after.data["state"]) == ("paused", "running")
    with api.watch(run, Last_Event_ID=last.id) as stream:
        assert next(stream.events()) == after


def test_what_ended_is_told_at_once_and_may_begin_again(api: Api) -> None:
    run = api.start()
    api.post(f"/api/runs/{run}/cancel")
    with api.watch(run) as stream:
        events = list(stream.events())
    assert [(event.name, event.data["state"]) for event in events] == [("end", "cancelled")]


def test_an_end_that_was_told_is_final_though_slots_leave_later(api: Api, engine: Engine) -> None:
    run = api.start()
    with engine.connect() as slot:
        slot.execute(text("SELECT pg_advisory_lock(:run, 0)"), {"run": run})
        api.post(f"/api/runs/{run}/cancel")
        with api.watch(run) as stream:
            (end,) = stream.events()
        assert (end.name, end.data["slots"]) == ("end", 1)
        slot.execute(text("SELECT pg_advisory_unlock(:run, 0)"), {"run": run})
    assert end.id is not None and api.get(f"/api/runs/{run}").body["slots"] == 0
    assert api.get(f"/api/runs/{run}/events", Last_Event_ID=end.id).status == 204


def test_many_watch_with_two_connections_and_few_threads(api: Api, engine: Engine) -> None:
    runs = [api.start(), api.start()]
    with ExitStack() as stack:
        streams = [stack.enter_context(api.watch(run)) for run in runs for _ in range(30)]
        told = [stream.events() for stream in streams]
        assert {next(events).data["state"] for events in told} == {"running"}
        assert api.get("/api/status").status == 200
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'candlefleet operations'"
        [[connections]] = rows(engine, f"{query} AND datname = current_database()")
        assert connections <= 2
        full = api.get(f"/api/runs/{runs[0]}/events")
        assert (full.status, int(full.headers["retry-after"]) > 0) == (503, True)
        for run in runs:
            api.post(f"/api/runs/{run}/cancel")
        assert {[*events][-1].data["state"] for events in told} == {"cancelled"}


def test_who_goes_away_makes_room(api: Api) -> None:
    run = api.start()
    streams = [api.watch(run) for _ in range(60)]
    for stream in streams:
        next(stream.events())
    assert api.get(f"/api/runs/{run}/events").status == 503
    streams.pop().close()
    wait_until(lambda: room(api, run, 1), "the place is free again")
    assert not room(api, run, 2)
    for stream in streams:
        stream.close()
    wait_until(lambda: room(api, run, 60), "all places are free again")
    assert "Traceback" not in api.log.read_text()


def room(api: Api, run: int, count: int) -> bool:
    """Tell whether so many more may watch at the same time."""
    with ExitStack() as stack:
        return all(stack.enter_context(api.watch(run)).response.status == 200 for _ in range(count))


def test_a_stream_outlives_an_outage_of_postgres(api: Api, servers: embedded.Servers, settings: Settings) -> None:
    run = api.start()
    with api.watch(run) as stream:
        events = stream.events()
        next(events)
        let_in(servers, settings, allowed=False)
        wait_until(lambda: "cannot look at a run" in api.log.read_text(), "a look has failed")
        let_in(servers, settings, allowed=True)
        wait_until(lambda: api.post(f"/api/runs/{run}/cancel").status == 200, "Postgres lets the API in again")
        assert [(event.name, event.data["state"]) for event in events][-1] == ("end", "cancelled")
    assert "Traceback" not in api.log.read_text()


def test_sigterm_ends_open_streams_and_is_no_error(api: Api) -> None:
    run = api.start()
    with ExitStack() as stack:
        told = [stack.enter_context(api.watch(run)).events() for _ in range(5)]
        for events in told:
            next(events)
        assert api.end() == 0
        assert [list(events) for events in told] == [[]] * 5
    log = api.log.read_text()
    assert "the API stopped" in log
    # uvicorn cancels what does not end by itself
    assert not re.search("Traceback|Cancel", log)
