"""Strategies written for freqtrade's IStrategy interface, version 3, run without freqtrade. docs/freqtrade.md explains.

Everything here is written from the interface, nothing is freqtrade's. pandas is imported in this package only, so
nothing else may import it: `app.strategies.registry` does so once an implementation starts with ``freqtrade:``.
"""
