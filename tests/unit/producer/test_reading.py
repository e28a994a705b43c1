"""Reading beside the work: one batch ahead and no more, errors where they can be dealt with, an end when asked."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from app.domain.candles import Candle
from app.errors import FeedError, TransientError
from app.producer.reading import Reader
from app.producer.trying import Trial
from tests.building import candle
from tests.waiting import wait_until


class Source:
    """Batches of one candle, counted as they are read."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.read = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[list[Candle]]:
        try:
            for number in range(self.count):
                self.read += 1
                yield [candle(number)]
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


def test_everything_comes_in_order_and_then_the_end():
    taken = []
    with Reader(Source(5)) as reader:
        while not reader.is_over:
            taken += reader.take(5.0) or []
    assert taken == [candle(number) for number in range(5)]


def test_a_feed_that_is_not_taken_from_is_read_no_further_than_what_waits_and_what_is_in_hand():
    source = Source(100)
    with Reader(source) as reader:
        wait_until(lambda: source.read == 2, "it has read ahead")
        assert reader.take(5.0) == [candle(0)]
        wait_until(lambda: source.read == 3, "it goes on as it is taken from")
        assert not source.is_closed
    assert source.read == 3
    assert not reader._thread.is_alive()


def test_an_error_comes_after_what_was_read_before_it():
    with Reader(Source(1, FeedError("torn"))) as reader:
        assert reader.take(5.0) == [candle(0)]
        with pytest.raises(FeedError, match="torn"):
            reader.take(5.0)
        assert reader.is_over


def test_nothing_for_now_is_told_from_the_end():
    go = Event()

    def slow() -> Iterator[list[Candle]]:
        assert go.wait(30)
        yield [candle(0)]

    with Reader(slow()) as reader:
        assert reader.take(0.001) is None and not reader.is_over
        go.set()
        assert reader.take(5.0) == [candle(0)]
        assert reader.take(5.0) is None and reader.is_over


class AwayError(TransientError):
    """A server that is away."""


class Server:
    """Refuses so many times, then answers."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.refusals:
            raise AwayError(f"no. {self.asked}")
        return "done"


def test_what_works_is_done_at_once():
    trial = Trial("work")
    assert trial.attempt(Server(0)) == "done"
    assert trial.reason is None and trial.left_s() <= 0


def test_what_failed_is_not_tried_again_at_once_but_in_the_end():
    trial, server = Trial("work"), Server(3)
    assert trial.attempt(server) is None
    assert trial.reason is not None and "no. 1" in trial.reason
    wait_until(lambda: trial.attempt(server) == "done", "it works")
    assert server.asked == 4  # while it waited nobody was asked
    assert trial.reason is None


def test_insisting_ends_with_a_stop():
    stop = Event()
    trial = Trial("work")
    assert trial.insist(Server(2), stop) == "done"
    stop.set()
    server = Server(1)
    assert trial.insist(server, stop) is None
    assert server.asked == 1


def test_other_errors_go_through():
    with pytest.raises(ValueError, match="mine"):
        Trial("work").attempt(lambda: int("mine"))
