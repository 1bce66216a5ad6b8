"""What the first byte of a coded mask (`wire.mask`) says. To tell them apart takes no numpy."""

from __future__ import annotations

RAW, FLIPS, BALLOT, MASKED = range(4)  # the last two of secure aggregation only


def is_ballot(data: bytes) -> bool:
    """Whether these are signs that must not be sent."""
    return data[:1] == bytes([BALLOT])
