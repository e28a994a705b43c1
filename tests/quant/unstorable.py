"""Answers and errors that look fine to Python and that a database refuses, or that end more than a job."""

from __future__ import annotations

from typing import Any

from app.strategies.sdk import Context, Signal, Strategy


class NulInExtras(Strategy):
    """A NUL character: JSON has it, jsonb refuses it."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"note": "a\x00b"})


class SurrogateInExtras(Strategy):
    """Half a character: a Python text, and no text in UTF-8."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"note": "\ud83d"})


class LooksLikeAnEscape(Strategy):
    """A backslash and some letters: nothing is wrong with it."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"note": r"C:\u0000"})


class NanInExtras(Strategy):
    """Not a number: Python's JSON has a word for it, nobody else's has."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"ratio": float("nan")})


class ObjectInExtras(Strategy):
    """Something that is no JSON at all."""

    def on_candle(self, context: Context) -> Signal:
        unchecked: Any = {"bars": context.bars}
        return Signal(action=1, extras=unchecked)


class UncheckedEdge(Strategy):
    """A signal that was built around its own checks."""

    def on_candle(self, context: Context) -> Signal:
        unchecked: Any = "a lot"
        return Signal.model_construct(action=1, strength=0.5, edge=unchecked, stop=None, target=None, extras={})


class UncheckedExtras(Strategy):
    """The same with something in it that no JSON can say."""

    def on_candle(self, context: Context) -> Signal:
        unchecked: Any = {"when": context}
        return Signal.model_construct(action=1, strength=0.5, edge=None, stop=None, target=None, extras=unchecked)


class SurrogateInError(Strategy):
    """An error whose message cannot be written down in UTF-8."""

    def on_candle(self, context: Context) -> Signal:
        raise ValueError("half a character: \ud83d")


class Interrupt(Strategy):
    """Raises what Ctrl-C raises."""

    def on_candle(self, context: Context) -> Signal:
        raise KeyboardInterrupt


class Leaving(Strategy):
    """Raises what a closed generator raises."""

    def on_candle(self, context: Context) -> Signal:
        raise GeneratorExit


class Chained(Strategy):
    """Recurses until there is no more stack."""

    def on_candle(self, context: Context) -> Signal:
        return self.on_candle(context)
