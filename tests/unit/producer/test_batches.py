from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.candles import Candle, Timeframe
from app.producer.reading import in_batches

START = datetime(2024, 1, 1, tzinfo=UTC)


def candle(symbol: str, hour: int, close: float = 1.0) -> Candle:
    return Candle(
        symbol=symbol, timeframe=Timeframe.H1, open_time=START + timedelta(hours=hour),
        open=close, high=close, low=close, close=close, volume=0.0,
    )  # fmt: skip


fed = st.lists(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 5), st.floats(1, 9)), min_size=1, max_size=8), max_size=12
)


@given(fed, st.integers(1, 10), st.booleans())
def test_order_is_kept_and_no_candle_comes_twice_in_a_batch(closes, most, join):
    feed = [[candle(*fields) for fields in close] for close in closes]
    batches = list(in_batches(feed, lambda: most, join=join))
    assert [c for batch in batches for c in batch] == [c for close in feed for c in close]
    for batch in batches:
        assert 0 < len(batch) <= most
        assert len({(c.symbol, c.open_time) for c in batch}) == len(batch)


def test_a_paced_feed_is_never_held_back_to_fill_a_batch():
    feed = [[candle("A", 0)], [candle("A", 1)]]
    assert list(in_batches(feed, lambda: 64, join=False)) == feed
    assert list(in_batches(feed, lambda: 64, join=True)) == [[*feed[0], *feed[1]]]
