"""From an asynchronous step's masks, of which some began steps before, to the votes announced with the next.

Masks are counted by the step they began with, as a round's are, and the mean votes of those groups are averaged,
a group of n masks that began s steps before with weight n x decay^s. What comes out is blended with the votes
before and rounded as `coordinator.aggregate` does; it depends on the stored masks alone, not on their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator import robust
from coordinator.aggregate import blend
from wire.mask import Signs, Votes, count_votes


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Masks that began with the same votes.

    Attributes:
        staleness: how many steps before the one in which they count that was.
        began: the votes they were trained from.
        masks: device and its mask, bool (kept,).
    """

    staleness: int
    began: Votes
    masks: Iterable[tuple[str, Signs]]


def close_step(
    previous: Votes,
    groups: Sequence[Group],
    *,
    decay: float,
    memory: float,
    flip_chance: float = 0.0,
    defend: bool = False,
) -> tuple[Votes, tuple[str, ...]]:
    """Count a step's masks, without those that `coordinator.robust` finds hostile; where all are, nothing changes.

    Args:
        previous: as announced with the step.
        groups: its masks, every device in one group at most; the order does not matter.
        decay: weight of a mask that is one step old.
        memory: as of `coordinator.aggregate.next_votes`.
        flip_chance: as of `coordinator.aggregate.next_votes`.
        defend: leave out what is hostile, each group judged against the votes that it began with.

    Returns:
        The next votes, and a line for a person about every device that was not counted.

    Raises:
        ValueError: if there is no mask.
    """
    counted: list[tuple[int, Votes]] = []
    remarks: list[str] = []
    for group in sorted(groups, key=lambda group: group.staleness):
        masks: Iterable[tuple[str, Signs]] = group.masks
        if defend:
            masks, found = _defended(group, flip_chance)
            remarks += found
        signs = [mask for _, mask in masks]
        if signs:
            counted.append((group.staleness, count_votes(signs, previous.signs)))
    if not counted:
        if not remarks:
            raise ValueError("no masks")
        return previous, (*remarks, f"none of {len(remarks)} masks was counted, the votes stay as they are")
    weights = [votes.voters * _power(decay, staleness) for staleness, votes in counted]
    fresh = np.zeros(previous.signs.size, dtype=np.float32)
    for weight, (_, votes) in zip(weights, counted, strict=True):
        fresh += np.float32(weight / sum(weights)) * votes.mean
    if flip_chance:
        fresh = (fresh / np.float32(1 - 2 * flip_chance)).clip(-1, 1)
    return blend(previous, fresh, memory), tuple(remarks)


def _defended(group: Group, flip_chance: float) -> tuple[list[tuple[str, Signs]], list[str]]:
    """A group without what is hostile, and what was found."""
    packed = {device: robust.pack(signs) for device, signs in group.masks}
    judgement = robust.judge(group.began, packed, flip_chance)
    kept = group.began.signs.size
    masks = [(device, robust.unpack(packed[device], kept)) for device in judgement.counted]
    return masks, [finding.text for finding in judgement.findings]


def _power(decay: float, exponent: int) -> float:
    """Decay^exponent by multiplications, which come out the same on every machine."""
    result = 1.0
    for _ in range(exponent):
        result *= decay
    return result
