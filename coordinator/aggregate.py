"""From a round's masks to the votes announced with the next: counting, with a memory for partial participation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator import robust
from wire.mask import Signs, Votes, count_votes

MEMORY = 0.5
DEFEND = True  # no false alarm on honest devices, whatever their data (docs/robustness.md)
LEVELS = 15  # a blended mean is rounded to dissent 0..7 of 15: three bits a weight, before coding


def next_votes(
    previous: Votes,
    masks: Iterable[Signs],
    memory: float,
    flip_chance: float = 0.0,
    counted: Iterable[Votes] = (),
) -> Votes:
    """Blend a round's votes with what was announced before it.

    Ten devices of a hundred are a small sample, and their mean vote a noisy one; with memory m the
    announced mean is m x previous + (1 - m) x this round's. It depends on nothing but the previous
    announcement and the masks, so a restarted coordinator comes to the same bytes.

    Where devices turn signs at random before they send them, the round's mean vote is 1 - 2 x chance of what it
    would have been, in expectation; it is divided by that, and clipped to [-1, 1] (Warner 1965).

    Args:
        previous: as announced with the round.
        masks: the round's masks, each bool (kept,).
        memory: share of the previous mean that stays, 0 <= m < 1; 0 counts this round alone.
        flip_chance: `wire.settings.Training.flip_chance`, 0 <= chance < 0.5.
        counted: what the round's other masks add up to (`coordinator.worker`).

    Raises:
        ValueError: if there is no mask.
    """
    return remember(previous, count_votes(masks, previous.signs, counted), memory, flip_chance)


def remember(previous: Votes, fresh: Votes, memory: float, flip_chance: float = 0.0) -> Votes:
    """As `next_votes`, from a round's votes that are counted already."""
    if not memory and not flip_chance:
        return fresh
    return blend(previous, _undo_flips(fresh, flip_chance), memory)


def blend(previous: Votes, fresh: NDArray[np.float32], memory: float) -> Votes:
    """Votes whose mean is memory x previous + (1 - memory) x fresh, rounded to what is announced.

    Args:
        previous: as announced.
        fresh: mean of new masks' signs, float32 (kept,).
        memory: 0 <= m < 1.
    """
    mean = memory * previous.mean + (1 - memory) * fresh
    signs = np.where(mean == 0, previous.signs, mean > 0)
    dissent = np.rint((1 - np.abs(mean)) / 2 * LEVELS).clip(0, LEVELS // 2).astype(np.uint16)
    return Votes(signs=signs, dissent=dissent, voters=LEVELS)


def close_votes(
    previous: Votes,
    masks: Iterable[tuple[str, Signs]],
    *,
    memory: float,
    flip_chance: float = 0.0,
    defend: bool = False,
    counted: Sequence[Votes] = (),
) -> tuple[Votes, tuple[str, ...]]:
    """Count a round's masks, without those that `coordinator.robust` finds hostile; where all are, nothing changes.

    Args:
        previous: as announced with the round.
        masks: device and its mask, bool (kept,); the order does not matter.
        memory: as of `next_votes`.
        flip_chance: as of `next_votes`.
        defend: leave out what is hostile; `counted` is empty then, for in a sum nobody finds it.
        counted: what the round's other masks add up to.

    Returns:
        The next votes, and a line for a person about every device that was not counted.

    Raises:
        ValueError: if there is no mask.
    """
    if not defend:
        return next_votes(previous, (signs for _, signs in masks), memory, flip_chance, counted), ()
    packed = {device: robust.pack(signs) for device, signs in masks}
    if not packed:
        raise ValueError("no masks")
    judgement = robust.judge(previous, packed, flip_chance)
    remarks = tuple(finding.text for finding in judgement.findings)
    if not judgement.counted:
        return previous, (*remarks, f"none of {len(packed)} masks was counted, the votes stay as they are")
    honest = (robust.unpack(packed[device], previous.signs.size) for device in judgement.counted)
    return next_votes(previous, honest, memory, flip_chance), remarks


def _undo_flips(votes: Votes, flip_chance: float) -> NDArray[np.float32]:
    return (votes.mean / np.float32(1 - 2 * flip_chance)).clip(-1, 1) if flip_chance else votes.mean
