"""Candle sources: a feed hands closed candles to the producer, oldest first."""
