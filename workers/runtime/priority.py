"""How much slots of batch runs give way to whatever is live on the same cores."""

from __future__ import annotations

import os
from contextlib import suppress

#: The lowest priority that nice(2) knows. A process of it still takes a core from a live one for a few milliseconds at
#: a time, at each of the half dozen hops of a candle; one of SCHED_IDLE leaves at once (sched(7)).
MOST_NICE = 19


def give_way(nice: int) -> None:
    """Lower the priority of this process, for good.

    Args:
        nice: as of nice(2); more than 19 is only the time that nothing else wants, where the system has that.
    """
    os.nice(min(nice, MOST_NICE))
    if nice > MOST_NICE and hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # not in every container
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
