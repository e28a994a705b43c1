"""The queue of slices of an evaluate run, as slots use it: claimed in Postgres, recorded once.

Claims and tickets are those of `app.storage.units`. A slice whose slot died is cut into single units, each of which is
then a slice by itself: the guilty one is found, and the innocent ones are evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection as DriverConnection

from app.domain.runs import Slice, SliceState
from app.runs.answers import ANSWER, Answers
from app.storage.arrays import FLOAT8, INT2, INT8, Kind
from app.storage.claiming import adopt_statement, release_statement
from app.storage.copying import array, build_rows, copy_rows, ints

# a quarter of what is free at most: the last slots of a run end at about the same time
_CLAIM = """
    WITH free AS (SELECT run_id, number FROM slices
                  WHERE run_id = %(run)s AND state = 'pending' AND claim IS NULL
                  ORDER BY number
                  LIMIT greatest(1, least(%(most)s, (SELECT count(*) / 4 FROM slices
                                                     WHERE run_id = %(run)s AND state = 'pending' AND claim IS NULL)))
                  FOR UPDATE SKIP LOCKED)
    UPDATE slices s SET claim = %(claim)s, ticket = %(ticket)s, started_at = clock_timestamp(), worker = %(worker)s
    FROM free
    WHERE s.run_id = free.run_id AND s.number = free.number
      AND EXISTS (SELECT FROM runs WHERE id = %(run)s AND state = 'running')
    RETURNING s.number, s.first_market, s.symbols, s.variants, s.attempts
"""

_ADOPT = adopt_statement("slices", "w.number, w.first_market, w.symbols, w.variants, w.attempts")
_RELEASE = release_statement("slices")

_RECORD = """
    UPDATE slices s SET state = %(state)s, attempts = done.attempts, claim = NULL, ticket = NULL,
                        elapsed_ms = done.elapsed_ms, cpu_ms = done.cpu_ms, memory_mb = %(memory_mb)s,
                        finished_at = clock_timestamp()
    FROM unnest(%(numbers)s::int[], %(attempts)s::int[], %(elapsed_ms)s::float8[], %(cpu_ms)s::float8[])
         AS done(number, attempts, elapsed_ms, cpu_ms)
    WHERE s.run_id = %(run)s AND s.number = done.number AND s.state = 'pending' AND s.claim = %(claim)s
    RETURNING s.number
"""

# whoever adds slices to a run holds its row: two must not take the same number
_HOLD = "SELECT FROM runs WHERE id = %(run)s FOR NO KEY UPDATE"

_CUT = """
    WITH done AS (UPDATE slices SET symbols = symbols[:%(markets)s]
                  WHERE run_id = %(run)s AND number = %(number)s AND state = 'pending' AND claim = %(claim)s
                  RETURNING run_id, first_market, variants),
         next AS (SELECT max(number) + 1 AS number FROM slices WHERE run_id = %(run)s)
    INSERT INTO slices (run_id, number, first_market, symbols, variants)
    SELECT done.run_id, next.number, done.first_market + %(markets)s, %(rest)s::text[], done.variants FROM done, next
"""

# none of the units was alone in the slot that died: that was no attempt of theirs
_SPLIT = """
    WITH whole AS (DELETE FROM slices WHERE run_id = %(run)s AND number = %(number)s AND state = 'pending'
                   AND claim = %(claim)s RETURNING *),
         next AS (SELECT max(number) + 1 AS number FROM slices WHERE run_id = %(run)s)
    INSERT INTO slices (run_id, number, first_market, symbols, variants)
    SELECT whole.run_id, next.number + row_number() OVER (ORDER BY m.place, v.variant) - 1,
           whole.first_market + m.place - 1, ARRAY[m.symbol], ARRAY[v.variant]
    FROM whole, next, unnest(whole.symbols) WITH ORDINALITY AS m(symbol, place), unnest(whole.variants) AS v(variant)
"""

#: Failed units become slices of their own; what they failed of is forgotten.
_RETRY = """
    WITH again AS (DELETE FROM evaluation_errors WHERE run_id = %(run)s RETURNING unit),
         total AS (SELECT count(*)::int AS variants FROM variants WHERE run_id = %(run)s),
         next AS (SELECT max(number) + 1 AS number FROM slices WHERE run_id = %(run)s)
    INSERT INTO slices (run_id, number, first_market, symbols, variants)
    SELECT %(run)s, next.number + row_number() OVER (ORDER BY again.unit) - 1, again.unit / total.variants,
           ARRAY[s.symbols[again.unit / total.variants - s.first_market + 1]], ARRAY[again.unit %% total.variants]
    FROM again CROSS JOIN total CROSS JOIN next CROSS JOIN LATERAL (
        SELECT symbols, first_market FROM slices
        WHERE run_id = %(run)s AND again.unit %% total.variants = ANY(variants)
          AND again.unit / total.variants BETWEEN first_market AND first_market + cardinality(symbols) - 1
        ORDER BY number LIMIT 1) AS s
"""

_COLUMNS = ("run_id", "number", "first_market", "symbols", "variants")

_KINDS: dict[str, Kind] = {
    name: {"i2": INT2, "i8": INT8, "f8": FLOAT8}[ANSWER[name].str[1:]] for name in ANSWER.names or ()
}


class ClaimedSlice(NamedTuple):
    """A slice that this slot may evaluate."""

    slice: Slice
    attempt: int
    """Which one this is, from 1."""


class UnitFailure(NamedTuple):
    """Why a unit has no signal."""

    unit: int
    attempts: int
    error_class: str
    error: str


@dataclass(frozen=True, slots=True)
class SliceEnd:
    """What came of a slice."""

    slice: Slice
    attempt: int
    answers: Sequence[Answers]
    """Of each variant, for the first markets of the slice; the others become a slice that nobody has claimed."""
    failures: Sequence[UnitFailure]
    elapsed_ms: float
    cpu_ms: float

    @property
    def markets(self) -> int:
        """How many there are answers for."""
        return len(self.answers[0])


def save_slices(driver: DriverConnection[Any], run: int, cut: Iterable[Slice]) -> None:
    """Write the slices of a new run, in the caller's transaction."""
    with driver.cursor() as cursor, cursor.copy(f"COPY slices ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
        for each in cut:
            copy.write_row((run, each.number, each.first_market, list(each.symbols), list(each.variants)))


def claim_slices(driver: DriverConnection[Any], stint: dict[str, Any], most: int) -> list[ClaimedSlice]:
    """Claim the next slices of a run that nobody has claimed; none when it does not run."""
    rows = driver.execute(_CLAIM, {**stint, "most": most}, prepare=True).fetchall()
    return sorted(_claimed(row, attempt=row[4] + 1) for row in rows)


def adopt_slice(driver: DriverConnection[Any], stint: dict[str, Any]) -> ClaimedSlice | None:
    """Claim a slice whose slot is gone; its attempt is counted already."""
    row = driver.execute(_ADOPT, stint, prepare=True).fetchone()
    return None if row is None else _claimed(row, attempt=row[4])


def split_slice(driver: DriverConnection[Any], stint: dict[str, Any], number: int) -> None:
    """Cut a claimed slice into its single units; nobody has claimed these yet."""
    with driver.transaction():
        driver.execute(_HOLD, stint)
        driver.execute(_SPLIT, {**stint, "number": number})


def release_slices(driver: DriverConnection[Any], stint: dict[str, Any]) -> None:
    """Give back what was claimed and not recorded."""
    driver.execute(_RELEASE, stint)


def retry_failed(driver: DriverConnection[Any], run: int) -> int:
    """Make the failed units of an evaluate run pending again, in the caller's transaction; return how many."""
    driver.execute(_HOLD, {"run": run})
    return driver.execute(_RETRY, {"run": run}).rowcount


def record_slices(
    driver: DriverConnection[Any], stint: dict[str, Any], ends: Sequence[SliceEnd], memory_mb: int
) -> int:
    """Record slices with all answers in one transaction; return how many counted.

    What was claimed by somebody else meanwhile, cancelled or recorded, is left as it is.

    Args:
        driver: of psycopg.
        stint: whose claims these are, as values of a statement.
        ends: what came of them.
        memory_mb: that this slot holds, MiB.
    """
    with driver.transaction():
        for end in ends:
            if end.markets < len(end.slice.symbols):
                _cut(driver, stint, end)
        recorded = _record_ends(driver, stint, ends, memory_mb)
        counted = [end for end in ends if end.slice.number in recorded]
        rows = [_answer_row(stint["run"], end, place) for end in counted for place in range(len(end.answers))]
        if rows:
            copy_rows(driver, "evaluations", ("run_id", "slice", "variant", *_KINDS), rows)
        _save_failures(driver, stint["run"], [failure for end in counted for failure in end.failures])
    return len(counted)


def _cut(driver: DriverConnection[Any], stint: dict[str, Any], end: SliceEnd) -> None:
    driver.execute(_HOLD, stint)
    rest = list(end.slice.symbols[end.markets :])
    driver.execute(_CUT, {**stint, "number": end.slice.number, "markets": end.markets, "rest": rest})


def _record_ends(
    driver: DriverConnection[Any], stint: dict[str, Any], ends: Sequence[SliceEnd], memory_mb: int
) -> set[int]:
    columns = {
        "numbers": [end.slice.number for end in ends],
        "attempts": [end.attempt for end in ends],
        "elapsed_ms": [end.elapsed_ms for end in ends],
        "cpu_ms": [end.cpu_ms for end in ends],
    }
    values = {**stint, **columns, "state": SliceState.DONE.value, "memory_mb": memory_mb}
    return {row[0] for row in driver.execute(_RECORD, values)}


def _answer_row(run: int, end: SliceEnd, place: int) -> bytes:
    answers = end.answers[place]
    columns = [array(kind.oid, answers[name].astype(kind.numpy)) for name, kind in _KINDS.items()]
    return build_rows(1, (ints(run), ints(end.slice.number), ints(end.slice.variants[place]), *columns))


def _save_failures(driver: DriverConnection[Any], run: int, failures: Sequence[UnitFailure]) -> None:
    if not failures:
        return
    statement = "COPY evaluation_errors (run_id, unit, attempts, error_class, error) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for each in failures:
            copy.write_row((run, *each))


def _claimed(row: Sequence[Any], attempt: int) -> ClaimedSlice:
    number, first_market, symbols, variants, _ = row
    return ClaimedSlice(Slice(number, first_market, tuple(symbols), tuple(variants)), attempt)


def load_answers(driver: DriverConnection[Any], run: int, markets: int, variants: int) -> tuple[Answers, list[str]]:
    """Load all answers of a run that ended, and its symbols.

    Args:
        driver: of psycopg.
        run: its id.
        markets: how many it has.
        variants: how many it has.

    Returns:
        (markets * variants,) answers, the variants of a market following each other, and the symbols of the markets.
    """
    answers, symbols = np.zeros((markets, variants), ANSWER), [""] * markets
    with driver.cursor(binary=True) as cursor:
        for first, names, variant, *columns in cursor.execute(_ANSWERS, {"run": run}):
            part = slice(first, first + len(names))
            symbols[part] = names
            for (name, kind), raw in zip(_KINDS.items(), columns, strict=True):
                answers[name][part, variant] = _elements(kind, raw)
    return answers.reshape(-1), symbols


# a retried unit has answers in two slices: the newer one counts
_ANSWERS = f"""
    SELECT s.first_market, s.symbols, e.variant, {", ".join(f"array_send(e.{name})" for name in _KINDS)}
    FROM evaluations e JOIN slices s ON s.run_id = e.run_id AND s.number = e.slice
    WHERE e.run_id = %(run)s ORDER BY e.slice
"""  # noqa: S608 - column names of our own

#: Bytes of an array before its elements: dimensions, NULLs, type, length, first index.
_ARRAY_HEAD = 20


def _elements(kind: Kind, raw: bytes) -> Any:
    element = np.dtype([("length", ">i4"), ("value", kind.numpy)])
    return np.frombuffer(raw, element, offset=_ARRAY_HEAD)["value"]
