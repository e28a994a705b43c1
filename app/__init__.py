"""Candlefleet: everything but execution. Never imports `workers`."""
