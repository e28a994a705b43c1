"""How messages say what many of them say."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Say how many there are of something: ``1 unit``, ``2,000 units``.

    Args:
        count: of them.
        noun: for one.
        plural: for any other number; None adds an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
