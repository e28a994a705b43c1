"""The command line: exit codes, what goes to stdout, and what a person is told when something is wrong."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from sqlalchemy import Engine

from app import embedded
from app.broker import Publisher
from app.cli.main import run
from app.domain.candles import Timeframe
from app.domain.jobs import OutcomeStatus, Signal
from app.operations import BUILTIN_DEFINITIONS
from app.settings import PREFIX, Settings
from app.storage.producers import ProducerBeat, save_producer
from tests.building import REPOSITORY, START, candle, definition, environment, outcome, register, walk
from tests.conftest import new_database, settings_on
from tests.integration.ledger import build_dispatcher, land_on, rows
from tests.integration.queues import Queues, jobs_of

GOOD = """
[base]
weight = 2.0

[strategies.cross]
implementation = "ema_cross"
priority = "high"
params = { fast = 5, slow = 21 }

[strategies.macd]
implementation = "macd"
"""
BAD = """
[strategies.cross]
implementation = "ema_crosss"

[strategies.macd]
implementation = "macd"
params = { fsat = 12 }
wieght = 3
"""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What was printed, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs `candlefleet ...` in this process as the installed script does, on the servers of this test."""
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level

    def command(*words: str, on: Settings = settings) -> Said:
        for name in [name for name in environment(on) if name.startswith(PREFIX)]:
            monkeypatch.setenv(name, environment(on)[name])
        monkeypatch.setattr(sys, "argv", ["candlefleet", *words])
        capfd.readouterr()
        code = exit_code()
        gc.collect()  # a connection that was left open is reported by the test that left it
        return Said(code, *capfd.readouterr())

    yield command
    root.handlers[:], root.level = handlers, level
    structlog.configure(**structured)


def exit_code() -> int:
    """Run the command of `sys.argv` and return how it ended."""
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0)


def in_a_shell(environ: dict[str, str], *words: str) -> Said:
    """Run `candlefleet ...` in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "app.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environ,
        timeout=60,
        check=False,
    )
    return Said(answer.returncode, answer.stdout, answer.stderr)


@pytest.fixture
def busy(engine: Engine) -> Engine:
    """A ledger with three strategies, two series, outcomes of several statuses and one open dispatch."""
    register(engine, definition("alpha"), definition("beta", "macd"), definition("gamma", symbols=["ETH-*"]))
    written = build_dispatcher(engine).write(
        [candle(0), candle(1), candle(2), candle(0, "ETH-USD", Timeframe.H4), candle(3)]
    )
    actions = {1: 1, 2: -1, 3: 0}
    for dispatch_id, action in actions.items():
        signal = Signal(action=action, strength=1.0)
        land_on(engine, dispatch_id, [outcome(n, signal=signal) for n in (1, 2)])
    broken = outcome(3, status=OutcomeStatus.FAILED, signal=None, error_class="ValueError", error="no")
    land_on(engine, 4, [outcome(1, status=OutcomeStatus.TIMED_OUT, signal=None), outcome(2), broken])
    assert len(written.dispatch_ids) == 5
    return engine


def test_database_is_checked_and_upgraded(servers: embedded.Servers, command: Command) -> None:
    with new_database(servers) as url:
        fresh = settings_on(url, servers.broker_url, "")
        before = command("db", "check", on=fresh)
        assert (before.code, "run 'candlefleet db upgrade'" in before.out) == (1, True)
        refused = command("status", on=fresh)
        assert (refused.code, "candlefleet db upgrade" in refused.err, refused.out) == (2, True, "")
        assert command("db", "upgrade", on=fresh).code == 0
        assert command("db", "upgrade", on=fresh).code == 0
        after = command("db", "check", "--json", on=fresh)
        assert (after.code, after.document["is_current"]) == (0, True)
        assert after.document["current"] == after.document["head"]


def test_good_file_is_loaded_once(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    first, second = (command("strategies", "add", str(file), "--json") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert [(row["name"], row["was"], row["weight"]) for row in first.document] == [
        ("cross", "added", 2.0),
        ("macd", "added", 2.0),
    ]
    assert [(row["name"], row["was"], row["revision"]) for row in second.document] == [
        ("cross", "unchanged", 1),
        ("macd", "unchanged", 1),
    ]


def test_bad_file_is_refused_whole_with_every_reason(command: Command, engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(GOOD + BAD.replace("strategies.", "strategies.other-"))
    said = command("strategies", "add", str(file))
    assert said.code == 2
    assert said.out == ""
    message = " ".join(said.err.split())
    for part in ("bad.toml", "ema_crosss", "did you mean 'ema_cross'", "fsat", "did you mean 'fast'", "wieght"):
        assert part in message
    assert "Traceback" not in said.err
    assert rows(engine, "SELECT count(*) FROM strategies") == [(0,)]


@pytest.mark.parametrize("name", ["nowhere.toml", "strategies.ini", "."])
def test_file_that_cannot_be_read_is_a_wrong_usage(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "strategies.ini").touch()
    said = command("strategies", "add", str(tmp_path / name))
    assert (said.code, said.out, "Traceback" in said.err) == (2, "", False)


def test_shipped_definitions_load(command: Command) -> None:
    said = command("strategies", "add", str(BUILTIN_DEFINITIONS), "--json")
    assert said.code == 0, said.err
    assert len(said.document) == 10
    assert {row["priority"] for row in said.document} == {"high", "normal", "low"}


def test_strategies_are_listed_shown_and_switched(command: Command, busy: Engine) -> None:
    assert [row["name"] for row in command("strategies", "list", "--json").document] == ["alpha", "beta", "gamma"]
    assert command("strategies", "pause", "beta").code == 0
    paused = command("strategies", "list", "--status", "paused", "--json").document
    assert [(row["name"], row["status"]) for row in paused] == [("beta", "paused")]
    shown = command("strategies", "show", "beta", "--json").document
    assert (shown["name"], shown["implementation"], shown["status"]) == ("beta", "macd", "paused")
    assert command("strategies", "resume", "beta").code == 0
    assert command("strategies", "list", "--status", "paused", "--json").document == []
    human = command("strategies", "show", "beta")
    assert (human.code, "macd" in human.out) == (0, True)


@pytest.mark.parametrize("verb", ["show", "pause", "resume"])
def test_unknown_strategy_is_answered_with_the_closest(command: Command, busy: Engine, verb: str) -> None:
    said = command("strategies", verb, "alhpa")
    assert (said.code, said.out) == (2, "")
    assert "did you mean 'alpha'" in " ".join(said.err.split())


def test_status_says_how_things_stand(command: Command, busy: Engine, publisher: Publisher) -> None:
    said = command("status", "--json")
    assert said.code == 0
    status = said.document
    assert (status["candles"], status["dispatches"], status["open_dispatches"], status["decisions"]) == (5, 5, 1, 4)
    assert status["jobs"] == {"total": 11, "succeeded": 7, "failed": 2, "waiting": 2}
    assert status["outcomes"] == {"succeeded": 7, "failed": 1, "timed_out": 1}
    assert status["queues"] == {"high": 0, "normal": 0, "low": 0}
    assert (status["nodes"], status["active_workers"], status["slots"]) == ([], 0, 0)
    assert status["latency_ms"]["p50"] > 0
    human = command("status")
    assert (human.code, "11 jobs: 7 succeeded, 2 failed, 2 waiting" in human.out) == (0, True)


def test_status_shows_what_is_held_and_which_feed_waits(command: Command, busy: Engine) -> None:
    told = "10 chunks are held; low is full: 100 of 100"
    beat = ProducerBeat(
        producer="host:7",
        feed="replay:x",
        started_at=START,
        candles=5,
        held={"low": 9, "high": 1},
        waiting_since=START,
        reason=told,
    )

    def lives() -> None:
        with busy.begin() as connection:
            save_producer(connection, beat)

    lives()
    status = command("status", "--json").document
    low = {"queue": "low", "waiting": 0, "limit": 100, "oldest_s": None, "oldest_limit_s": None, "held": 9}
    assert status["pressure"][2] == {**low, "full": None}
    assert [each["queue"] for each in status["pressure"]] == ["high", "normal", "low"]
    (producer,) = status["producers"]
    assert (producer["producer"], producer["feed"], producer["candles"]) == ("host:7", "replay:x", 5)
    assert (producer["held"], producer["is_alive"], producer["notes"]) == ({"low": 9, "high": 1}, True, {})
    lives()  # a busy machine takes longer for a command than a producer may be silent
    assert f"host:7 has held back its feed since 00:00:00 UTC: {told}" in command("status").out


#: What is asked for, and how many outcomes of `busy` that is.
OUTCOMES: list[tuple[tuple[str, ...], int]] = [
    ((), 9),
    (("--limit", "2"), 2),
    (("--dispatch", "4"), 3),
    (("--strategy", "alpha"), 4),
    (("--status", "succeeded"), 7),
    (("--status", "timed_out"), 1),
    (("--symbol", "ETH-USD"), 3),
    (("--timeframe", "1h"), 6),
    (("--timeframe", "1d"), 0),
    (("--since", "2024-01-01T01:00:00"), 4),
    (("--symbol", "BTC-USD", "--strategy", "beta", "--since", "2024-01-01T02:00:00"), 1),
]


def test_outcomes_are_filtered(command: Command, busy: Engine) -> None:
    for words, found in OUTCOMES:
        said = command("outcomes", *words, "--json")
        assert (said.code, len(said.document)) == (0, found), words
        ids = [row["dispatch_id"] for row in said.document]
        assert ids == sorted(ids, reverse=True)


#: What is asked for, and the dispatches whose decisions that is, newest first.
DECISIONS: list[tuple[tuple[str, ...], list[int]]] = [
    ((), [4, 3, 2, 1]),
    (("--action", "long"), [1]),
    (("--action", "short"), [2]),
    (("--action", "flat"), [3]),
    (("--symbol", "ETH-USD"), [4]),
    (("--timeframe", "4h"), [4]),
    (("--since", "2024-01-01T01:00:00"), [3, 2]),
    (("--limit", "1"), [4]),
]


def test_decisions_are_filtered(command: Command, busy: Engine) -> None:
    for words, ids in DECISIONS:
        said = command("decisions", *words, "--json")
        assert (said.code, [row["dispatch_id"] for row in said.document]) == (0, ids), words


#: What is asked for, and the dispatches that is, newest first.
DISPATCHES: list[tuple[tuple[str, ...], list[int]]] = [
    ((), [5, 4, 3, 2, 1]),
    (("--state", "open"), [5]),
    (("--state", "complete", "--symbol", "BTC-USD"), [3, 2, 1]),
    (("--timeframe", "4h"), [4]),
    (("--since", "2024-01-01T02:00:00"), [5, 3]),
]


def test_dispatches_are_filtered(command: Command, busy: Engine) -> None:
    for words, ids in DISPATCHES:
        said = command("dispatches", *words, "--json")
        assert (said.code, [row["id"] for row in said.document]) == (0, ids), words


@pytest.mark.parametrize("what", ["outcomes", "decisions", "dispatches", "status"])
def test_people_get_a_table_of_the_same(command: Command, busy: Engine, what: str) -> None:
    said = command(what)
    assert said.code == 0
    assert said.out.strip()
    assert not said.out.lstrip().startswith(("[", "{"))


@pytest.mark.parametrize("words", ["outcomes", "decisions", "dispatches", "strategies list", "workers"])
def test_nothing_is_an_empty_document(command: Command, words: str) -> None:
    said = command(*words.split(), "--json")
    assert (said.code, said.document) == (0, [])
    assert command(*words.split()).out == ""


def test_outcome_that_json_has_no_word_for_is_still_one_document(command: Command, busy: Engine) -> None:
    said = command("outcomes", "--status", "failed", "--json")
    (row,) = said.document
    assert (row["action"], row["strength"], row["error_class"], row["detail"]) == (None, None, "ValueError", None)
    assert row["open_time"] == "2024-01-01T00:00:00+00:00"


def test_producer_replays_a_file(command: Command, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    register(engine, definition("one"), definition("two", "macd"))
    file = tmp_path / "ONE-USD-1h.csv"
    lines = [
        f"{round(c.open_time.timestamp() * 1000)},{c.open},{c.high},{c.low},{c.close},{c.volume}"
        for c in walk("ONE-USD", 30)
    ]
    file.write_text("\n".join(["timestamp,open,high,low,close,volume", *lines, lines[-1]]))
    said = command("producer", "--feed", f"replay:{file}", "--json")
    assert said.code == 0, said.err
    report = said.document
    assert {key: report[key] for key in ("candles", "repeated", "dispatches", "chunks", "jobs")} == {
        "candles": 30,
        "repeated": 0,
        "dispatches": 30,
        "chunks": 30,
        "jobs": 60,
    }
    assert sum(report["rejected"].values()) == 1
    queues = Queues(settings)
    assert jobs_of(queues.chunks()) == [(dispatch, n) for dispatch in range(1, 31) for n in (1, 2)]
    queues.close()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("producer", "--feed", "nonsense"), 2, "expected replay:PATH"),
        (("producer", "--feed", "replay:/nowhere/at/all"), 1, "/nowhere/at/all"),
        (("worker", "--queues", "hihg"), 2, "did you mean 'high'"),
        (("workers", "scale", "nobody@here", "-1"), 2, "no node 'nobody@here'"),
        (("workers", "scale", "nobody@here", "2"), 2, "expected slots as +2, -1 or =4, found '2'"),
        (("outcomes", "--status", "lost"), 2, "lost"),
        (("outcomes", "--limit", "0"), 2, "--limit"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_wrong_usage_is_said_on_stderr(command: Command, words: tuple[str, ...], code: int, part: str) -> None:
    said = command(*words)
    assert (said.code, said.out) == (code, "")
    assert part in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_unknown_variable_is_refused_with_a_suggestion(clean_environment: dict[str, str]) -> None:
    said = in_a_shell({**clean_environment, "CANDLEFLEET_DISPATCH__CHUNKSIZE": "8"}, "status")
    assert (said.code, said.out) == (2, "")
    expected = "CANDLEFLEET_DISPATCH__CHUNKSIZE: did you mean CANDLEFLEET_DISPATCH__CHUNK_SIZE?"
    assert expected in " ".join(said.err.split())
    assert "Traceback" not in said.err


def away(clean_environment: dict[str, str], database: str) -> dict[str, str]:
    broker = {"CANDLEFLEET_BROKER_URL": "redis://127.0.0.1:9/0"}
    return {**clean_environment, **broker, "CANDLEFLEET_DATABASE_URL": database}


def test_database_that_is_away_is_one_line(clean_environment: dict[str, str]) -> None:
    said = in_a_shell(away(clean_environment, "postgresql://nobody:secret@127.0.0.1:9/none"), "status")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("candlefleet: Postgres is away")
    assert "secret" not in said.err
    assert len(said.err.splitlines()) == 1, said.err


@pytest.mark.parametrize("url", ["nonsense", "mysql://user@host/name", "postgresql://user:secret@[::1/name"])
def test_database_url_that_is_none_is_wrong_configuration(clean_environment: dict[str, str], url: str) -> None:
    said = in_a_shell(away(clean_environment, url), "db", "check")
    assert "Traceback" not in said.err
    assert (said.code, said.out) == (2, "")
    assert "CANDLEFLEET_DATABASE_URL" in said.err
    assert "secret" not in said.err


def test_broker_url_that_is_none_is_wrong_configuration(settings: Settings) -> None:
    said = in_a_shell({**environment(settings), "CANDLEFLEET_BROKER_URL": "nonsense://host"}, "status")
    assert "Traceback" not in said.err
    assert (said.code, said.out) == (2, "")


def test_status_without_a_broker_still_shows_the_ledger(settings: Settings) -> None:
    said = in_a_shell({**environment(settings), "CANDLEFLEET_BROKER_URL": "redis://127.0.0.1:9/0"}, "status", "--json")
    assert said.code == 0, said.err
    assert said.document["queues"] == {"high": None, "normal": None, "low": None}
    assert said.document["dispatches"] == 0
