"""Strategies: the SDK, what it is written with, and the built-ins. Pure: numpy, TA-Lib and the domain only."""
