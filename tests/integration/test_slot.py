"""What a slot does with a chunk, in this process, on real servers: above all that jobs never hurt their neighbours."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import Engine

from app.broker import Publisher, create_celery
from app.domain.jobs import Chunk
from app.domain.strategies import Limits
from app.errors import StorageUnavailableError
from app.settings import BreakerSettings, Settings
from app.storage.engine import open_engine
from tests.building import candle, definition, register, walk
from tests.conftest import Deploy
from tests.integration.ledger import build_dispatcher, rows
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared

#: The soft limit of a job and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(60, method="thread")


def dispatched(engine: Engine, *implementations: str, count: int = 40) -> list[Chunk]:
    """Register strategies and dispatch a series; return the chunk of each candle."""
    limits = Limits(retries=0)
    register(engine, *(definition(f"s{n}", name, limits=limits) for n, name in enumerate(implementations)))
    return [envelope.chunk for envelope in build_dispatcher(engine).write(walk("BTC-USD", count)).envelopes]


def statuses(engine: Engine) -> list[tuple[object, ...]]:
    return rows(engine, "SELECT strategy_id, status, error_class FROM outcomes ORDER BY dispatch_id, strategy_id")


@pytest.mark.parametrize(
    "answer",
    [
        "NulInExtras",
        "SurrogateInExtras",
        "NanInExtras",
        "ObjectInExtras",
        "UncheckedEdge",
        "UncheckedExtras",
        "SurrogateInError",
    ],
)
def test_answer_that_no_database_takes_hurts_only_its_own_job(engine: Engine, slot: Slot, answer: str) -> None:
    *_, chunk = dispatched(engine, "macd", f"tests.quant.unstorable:{answer}", "ema_cross")
    slot.executor.execute([chunk])
    found = statuses(engine)
    assert [status for _, status, _ in found] == ["succeeded", "failed", "succeeded"]
    assert rows(engine, "SELECT count(*) FROM decisions") == [(1,)]


@pytest.mark.parametrize("error", ["Interrupt", "Leaving", "Chained"])
def test_anything_raised_is_the_end_of_its_own_job_only(engine: Engine, slot: Slot, error: str) -> None:
    *_, chunk = dispatched(engine, "macd", f"tests.quant.unstorable:{error}", "ema_cross")
    try:
        slot.executor.execute([chunk])
    except BaseException as escaped:  # it would end pytest as well
        pytest.fail(f"{type(escaped).__name__} of one job got out of the chunk")
    assert [status for _, status, _ in statuses(engine)] == ["succeeded", "failed", "succeeded"]


def test_text_that_only_looks_like_an_escape_is_kept(engine: Engine, slot: Slot) -> None:
    *_, chunk = dispatched(engine, "tests.quant.unstorable:LooksLikeAnEscape")
    slot.executor.execute([chunk])
    assert rows(engine, "SELECT status, detail->'extras'->>'note' FROM outcomes") == [("succeeded", r"C:\u0000")]


def test_bundle_gives_the_answers_that_its_chunks_give_alone(
    engine: Engine, settings: Settings, alarm: None, deploy: Deploy
) -> None:
    strategies = ("macd", "tests.quant.revealing:Digest", "tests.quant.misbehaving:Garbage")
    # which breakers are open is asked once a second: one that opened would be noticed by the slower of the two
    patient = {"breaker": BreakerSettings(failures=1_000)}
    with closing(open_slot(create_celery(settings), settings.model_copy(update=patient), Shared())) as slot:
        together = slot.executor.execute(dispatched(engine, *strategies))
    assert [each.decision is not None for each in together] == [True] * 40
    query = """
        SELECT dispatch_id, strategy_id, status, action, strength, detail->'extras'->>'digest' AS digest
        FROM outcomes ORDER BY 1, 2
    """
    with deploy() as other, open_engine(other.database_dsn, name="tests") as apart:
        with closing(open_slot(create_celery(other), other.model_copy(update=patient), Shared())) as alone:
            for chunk in dispatched(apart, *strategies):
                alone.executor.execute([chunk])
        assert rows(engine, query) == rows(apart, query)


def test_chunk_executed_again_changes_nothing(engine: Engine, slot: Slot) -> None:
    *_, chunk = dispatched(engine, "macd", "ema_cross")
    assert slot.executor.execute([chunk])[0].decision is not None
    before = rows(engine, "SELECT * FROM outcomes")
    assert slot.executor.execute([chunk])[0].decision is None
    assert rows(engine, "SELECT * FROM outcomes") == before


def test_broken_connection_is_told_as_transient_and_the_next_try_works(engine: Engine, slot: Slot) -> None:
    first, second, *_ = dispatched(engine, "macd", count=2)
    slot.executor.execute([first])
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'candlefleet slot%'"
    assert len([row for row in rows(engine, others) if row[0]]) >= 1
    with pytest.raises(StorageUnavailableError):
        slot.executor.execute([second])
    assert slot.executor.execute([second])[0].decision is not None
    assert len(statuses(engine)) == 2


def test_chunk_older_than_the_cached_window_sees_its_own_past(engine: Engine, slot: Slot, settings: Settings) -> None:
    chunks = dispatched(engine, "tests.quant.revealing:Digest", count=3 * settings.worker.window)
    for chunk in (chunks[-1], chunks[0], chunks[5], chunks[-1]):
        slot.executor.execute([chunk])
    query = "SELECT detail->'extras'->>'length' FROM outcomes ORDER BY dispatch_id"
    assert rows(engine, query) == [("1",), ("6",), (str(settings.worker.window),)]


def test_candle_that_is_gone_from_postgres_is_an_error_and_lands_nothing(engine: Engine, slot: Slot) -> None:
    *_, chunk = dispatched(engine, "macd", count=3)
    ghost = chunk.model_copy(update={"candle": candle(99), "previous_open_time": None})
    with pytest.raises(LookupError, match="is not in Postgres"):
        slot.executor.execute([ghost])
    assert statuses(engine) == []


def test_retry_is_published_for_the_failed_jobs_alone(engine: Engine, slot: Slot, publisher: Publisher) -> None:
    raises = "tests.quant.misbehaving:Raises"
    limits = Limits(retries=1, timeout_ms=2000)
    register(engine, definition("good"), definition("bad", raises, limits=limits), definition("worse", raises))
    (envelope,) = build_dispatcher(engine).write([candle(0)]).envelopes
    (done,) = slot.executor.execute([envelope.chunk])
    assert [o.strategy_id for o in done.outcomes] == [1]
    assert [(a.strategy_id, a.attempt) for a in done.attempts] == [(2, 0), (3, 0)]
    assert publisher.depths() == {"high": 0, "normal": 1, "low": 0}
