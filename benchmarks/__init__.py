"""Measurements: ratios within one run, because machines are shared and noisy. Never part of the tests."""
