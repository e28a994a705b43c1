"""The producer: turns closed candles into dispatches in Postgres and chunks on the queues."""
