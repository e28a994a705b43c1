"""Following runs: what watchers see of looks that come faster, slower, or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.api import following
from app.api.following import Follower, Seen, look
from app.domain.runs import RunState
from app.errors import StorageUnavailableError
from app.operations import Operations
from app.storage.runs import Progress

#: Seconds after which a test has failed.
PATIENCE_S = 30.0


def seen(number: int, *, is_end: bool = False) -> Seen:
    return Seen(str(number), f"{number}", is_end)


class Looks:
    """Each look at a run sees the next number; the last one is its end."""

    def __init__(self, last: int, error: Exception | None = None) -> None:
        self.runs: list[int] = []
        self._last = last
        self._error = error

    def __call__(self, run_id: int) -> Seen:
        self.runs.append(run_id)
        count = self.runs.count(run_id)
        if self._error is not None and count < self._last:
            raise self._error
        return seen(min(count, self._last), is_end=count >= self._last)


def test_the_end_of_a_run_has_one_id_whatever_still_moves_and_another_when_it_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def see(state: RunState, slots: int, hour: int, *, is_trimmed: bool = False) -> Seen:
        units = {"pending": 0, "succeeded": 1, "failed": 0, "cancelled": 1}
        progress = Progress(state, units, 10, 0.0, 0.0, 0, slots, is_trimmed=is_trimmed, candles_pending=0)
        found = SimpleNamespace(units=2, candles=20, finished_at=datetime(2024, 1, 1, hour, tzinfo=UTC))
        monkeypatch.setattr(following, "load", lambda *_: (found, progress))
        return look(cast("Operations", None), 1)

    end = see(RunState.CANCELLED, 2, 1)
    assert end.is_end and '"slots": 2' in end.progress
    assert see(RunState.CANCELLED, 0, 1).id == see(RunState.CANCELLED, 0, 1, is_trimmed=True).id == end.id
    assert see(RunState.CANCELLED, 0, 2).id != end.id
    assert see(RunState.RUNNING, 2, 1).id != see(RunState.RUNNING, 1, 1).id


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE_S))


async def numbers(follower: Follower, run_id: int = 1) -> list[int]:
    async with aclosing(follower.follow(run_id, seen(0))) as sights:
        return [int(each.id) async for each in sights if each is not None]


def test_all_who_watch_share_the_looks() -> None:
    async def test() -> None:
        looks = Looks(last=20)
        follower = Follower(looks, most=10, every_s=0)
        told = await asyncio.gather(*(numbers(follower) for _ in range(5)))
        assert all(each[0] == 0 and each[-1] == 20 and each == sorted(each) for each in told)
        # one look more may happen before all have left
        assert len(looks.runs) <= 21
        assert follower.watchers == 0

    run(test())


def test_a_slow_reader_gets_the_newest() -> None:
    async def test() -> None:
        looks = Looks(last=50)
        follower = Follower(looks, most=10, every_s=0)
        async with aclosing(follower.follow(1, seen(0))) as sights:
            assert await anext(sights) == seen(0)
            assert (await numbers(follower))[-1] == 50
            assert await anext(sights) == seen(50, is_end=True)

    run(test())


@pytest.mark.parametrize("error", [StorageUnavailableError("away"), ZeroDivisionError("a fault of ours")])
def test_what_cannot_be_seen_is_looked_at_again(error: Exception) -> None:
    async def test() -> None:
        follower = Follower(Looks(last=9, error=error), most=10, every_s=0)
        assert await numbers(follower) == [0, 9]

    run(test())


def test_nobody_looks_at_what_nobody_watches() -> None:
    async def test() -> None:
        looks = Looks(last=20)
        follower = Follower(looks, most=10, every_s=0)
        await numbers(follower, run_id=1)
        await numbers(follower, run_id=2)
        assert looks.runs.count(1) <= 21
        await follower.close()

    run(test())


def test_closing_ends_every_watching() -> None:
    async def test() -> None:
        follower = Follower(lambda _: seen(0), most=10, every_s=0)
        watching = asyncio.create_task(numbers(follower))
        while not follower.watchers:
            await asyncio.sleep(0)
        await follower.close()
        assert await watching == [0]
        assert await numbers(follower) == []

    run(test())
