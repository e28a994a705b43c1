"""Waiting for something that happens in another process, without guessing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

_PAUSE_S = 0.02


def wait_until(condition: Callable[[], Answer], reason: str, timeout_s: float = 30.0) -> Answer:
    """Ask `condition` until it is truthy and return its answer.

    Args:
        condition: asked again and again; an exception of it goes through.
        reason: what is waited for; the message of the failure.
        timeout_s: seconds after which to give up.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {reason} (last answer: {answer!r})")
        time.sleep(_PAUSE_S)
    return answer
