"""What a slot holds of memory, and what a job may add to it, refused by the kernel.

A library that dies of a refused allocation takes its slot along: that is a dead slot like any other.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
import structlog

from app.errors import MemoryLimitError

log = structlog.get_logger()

#: Only Linux tells cheaply how large a process is, and refuses an allocation that would make it larger than allowed.
ENFORCES_MEMORY = sys.platform == "linux"

#: A job that took longer than this, milliseconds, may have made its slot larger: what the next one starts from is read
#: again. A shorter one has not had the time to fill memory worth counting.
LARGER_AFTER_MS = 0.1

#: Options of glibc's mallopt (malloc.h): how many regions it may allocate from; how much free memory at the end of its
#: heap it keeps; from which size on a block is asked of the kernel, and given back to it when it is freed.
M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -8, -1, -3

#: Bytes that a slot of batch runs keeps when they are freed, and the largest block among them: the columns of a unit
#: of 100,000 candles are 0.8 MB each, some thirty at a time. Fresh pages for each took longer than what is computed.
KEPT_BYTES, KEPT_BLOCK_BYTES = 64 << 20, 16 << 20

#: Seconds for which a look at what this process holds serves: the kernel counts all of its pages, some
#: milliseconds for 200 MB, which is as much as a small unit takes.
HELD_FOR_S = 1.0

_MIB = 1024 * 1024


def say_if_memory_is_free() -> None:
    """Say once, in the main process of a node, if jobs can take as much memory as they like here."""
    if not ENFORCES_MEMORY:
        log.warning("limits.memory_mb is not enforced", reason=f"needs Linux, found {sys.platform}")


def resident_kib() -> int:
    """Return how much memory this process has now; billiard's own answer is the most it ever had."""
    return _pages(1) * _PAGE // 1024


def held_mb() -> int:
    """Return how much memory this process holds, MiB, as it was a second ago at most.

    What forked slots share is counted in proportion, so that the sum over slots is what they take together. Where the
    kernel does not say that, all that is resident is counted.
    """
    global _held
    pid, now = os.getpid(), time.monotonic()
    if _held is None or _held[0] != pid or now - _held[1] > HELD_FOR_S:
        _held = pid, now, _proportional_kib() // 1024
    return _held[2]


def _proportional_kib() -> int:
    """Return the proportional set size.

    Source: https://docs.kernel.org/filesystems/proc.html, smaps_rollup; since Linux 4.14.
    """
    with suppress(OSError):
        for line in Path("/proc/self/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1])
    return int(psutil.Process().memory_info().rss) // 1024


class MemoryLimit:
    """What one job may add to the address space of its slot. Used by the slot's main thread.

    Jobs of microseconds follow each other, so a limit that is in force already serves the next one as well. It is
    lifted when no strategy's code runs: what lands an outcome must not run out of memory. Threads count with their
    stacks, 8 MiB each.
    """

    def __init__(self) -> None:
        self._before, self._hard = resource.getrlimit(resource.RLIMIT_AS)
        self._start: int | None = None
        self._in_force_mb: int | None = None
        self._memory_mb = 0

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Surround jobs that follow each other."""
        self.forget()
        try:
            yield
        finally:
            self._lift()

    def allow(self, memory_mb: int) -> None:
        """Let what runs next add at most so many MiB."""
        self._memory_mb = memory_mb
        if ENFORCES_MEMORY and memory_mb != self._in_force_mb:
            if self._start is None:
                self._start = _pages(0) * _PAGE
            self._set(self._start + memory_mb * _MIB)
            self._in_force_mb = memory_mb

    def forget(self) -> None:
        """Read the size of the slot again before the next job: somebody may have changed it."""
        self._start = self._in_force_mb = None

    def explain(self, error: BaseException) -> BaseException:
        """Return what to record of an error of the job that ran last: one of memory says how much it had taken.

        Call it while the error is handled: its traceback keeps the job's variables until then. What was on its way
        into a variable is gone already.
        """
        if not isinstance(error, MemoryError) or self._start is None:
            return error
        self._lift()
        held = max(0, _pages(0) * _PAGE - self._start) // _MIB
        self.forget()
        asked = f" ({error})" if str(error) else ""
        return MemoryLimitError(
            f"expected at most {self._memory_mb} MiB more than the slot had before, found it asking for more{asked} "
            f"while it held {held} MiB: have it hold less at a time, or raise limits.memory_mb of the strategy"
        )

    def _lift(self) -> None:
        self._in_force_mb = None
        if ENFORCES_MEMORY:
            resource.setrlimit(resource.RLIMIT_AS, (self._before, self._hard))

    def _set(self, size: int) -> None:
        soft = size if self._hard == resource.RLIM_INFINITY else min(size, self._hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, self._hard))


def use_one_arena() -> None:
    """Keep the allocator from reserving in advance; once per slot, before the first job."""
    # glibc reserves 64 MiB for every thread, and once more when it was refused: a job would seem to have taken that
    if ENFORCES_MEMORY:
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


@cache
def keep_freed_blocks() -> None:
    """Use freed blocks of some size again instead of fresh pages; once per slot, before its first work on a run."""
    if ENFORCES_MEMORY:
        with suppress(AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


#: Process, moment and MiB of the last look at what it holds.
_held: tuple[int, float, int] | None = None
_PAGE = resource.getpagesize()
_statm: tuple[int, int] | None = None


def _pages(field: int) -> int:
    """Return a field of /proc/self/statm: 0 the address space, 1 what of it is resident; in pages."""
    global _statm
    pid = os.getpid()
    if _statm is None or _statm[0] != pid:
        # kept open: opening costs ten times what reading does; a child must not read its parent's
        _statm = pid, os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    return int(os.pread(_statm[1], 64, 0).split()[field])
