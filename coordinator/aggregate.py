"""From a round's masks to the votes announced with the next: counting, with a memory for partial participation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wire.mask import Signs, Votes, count_votes

MEMORY = 0.5
LEVELS = 15  # a blended mean is rounded to dissent 0..7 of 15: three bits a weight, before coding


def next_votes(previous: Votes, masks: Iterable[Signs], memory: float) -> Votes:
    """Blend a round's votes with what was announced before it.

    Ten devices of a hundred are a small sample, and their mean vote a noisy one; with memory m the
    announced mean is m x previous + (1 - m) x this round's. It depends on nothing but the previous
    announcement and the masks, so a restarted coordinator comes to the same bytes.

    Args:
        previous: as announced with the round.
        masks: the round's masks, each bool (kept,).
        memory: share of the previous mean that stays, 0 <= m < 1; 0 counts this round alone.

    Raises:
        ValueError: if there is no mask.
    """
    fresh = count_votes(masks, previous.signs)
    if not memory:
        return fresh
    mean = memory * previous.mean + (1 - memory) * fresh.mean
    signs = np.where(mean == 0, previous.signs, mean > 0)
    dissent = np.rint((1 - np.abs(mean)) / 2 * LEVELS).clip(0, LEVELS // 2).astype(np.uint16)
    return Votes(signs=signs, dissent=dissent, voters=LEVELS)
