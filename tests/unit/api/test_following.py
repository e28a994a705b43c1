"""Following runs: what watchers see of looks that come faster, slower, or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from app.api.following import Follower, Seen
from app.errors import StorageUnavailableError

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
