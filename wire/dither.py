"""One bit of every score that says, without bias, how far it has moved: subtractive dither.

The bit tells whether a score lies above a threshold, drawn evenly over all that a score may be and known to both sides.
The reader knows the bit that the announced mean score would have given. The difference of the two is, in expectation,
how far the score has moved, in units of twice the largest score (Roberts, IRE Transactions on Information Theory 8,
1962; Gray and Stockham, IEEE Transactions on Information Theory 39, 1993). So what many devices push a little adds up,
where their signs alone forget it; and what has not moved takes next to nothing in a code that knows both.

Mean scores are announced as `wire.mask.Votes` of fifteen voters: sixteen levels from minus to plus the largest score.
Thresholds are whole numbers of which 17 lie between two levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire import prng
from wire.mask import LEVELS, Context, Signs, Votes, unanimous
from wire.settings import Training

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
TOP = LEVELS - 1
BETWEEN = 255 // TOP
NEARNESS = (3, 7, 15, 27, 47, 87, 127)  # the distances from which on a bit is surer, in thresholds
FIRST_DISSENT = 2  # of 15 (docs/method.md)


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """The bits of one device that has not trained.

    Attributes:
        signs: bool (kept,), True: the announced score lies above the threshold.
        levels: uint8 (kept,), 0 .. 15, how sure that is: 8 and more where the bit is set, the least sure at 7 and 8.
    """

    signs: Signs
    levels: Bytes


def thresholds(seed: int, kept: int) -> Bytes:
    """Evenly from 0 .. 255, uint8 (kept,): a score lies above t if 255 (score + largest) / (2 largest) > t + 1/2."""
    return prng.words(seed, prng.STREAM_DITHER, 0, -(-kept // 8)).astype("<u8").view(np.uint8)[:kept]


def first_votes(kept: int, training: Training) -> Votes:
    """What the first round is announced with: every sign +1, and room for scores to grow where they are dithered."""
    if not training.dither:
        return unanimous(kept)
    return announce(np.full(kept, TOP - FIRST_DISSENT, dtype=np.uint8))


def announce(levels: Bytes) -> Votes:
    """Mean scores as they are announced, from their levels, uint8 (kept,), 0 .. 15."""
    signs = levels > TOP // 2
    return Votes(signs=signs, dissent=np.where(signs, TOP - levels, levels).astype(np.uint16), voters=TOP)


def start_scores(votes: Votes, training: Training) -> Floats:
    """Scores that a device starts a round with, float32 (kept,)."""
    if not training.dither:
        return votes.start_scores(training.start)
    return votes.mean * np.float32(training.dither)


def signs_of(scores: Floats, training: Training, seed: int) -> Signs:
    """What a device sends of its scores, float32 (kept,): their signs, or whether they lie above their thresholds.

    Args:
        scores: as trained; beyond the largest they count as the largest.
        training: as announced.
        seed: of this device's training in this round.
    """
    if not training.dither:
        return scores >= 0
    units = (scores * np.float32(1 / training.dither) + np.float32(1)) * np.float32(255 / 2)
    return units > thresholds(seed, scores.size) + np.float32(0.5)


def context(votes: Votes, training: Training, seed: int) -> Context:
    """What both sides know of a mask before it is sent; arguments as of `signs_of`."""
    if not training.dither:
        return votes
    drawn, announced = thresholds(seed, votes.signs.size), votes.levels * np.uint8(BETWEEN)
    above = announced > drawn
    distance = np.where(above, announced - drawn - np.uint8(1), drawn - announced)
    sure = _SURE[distance]
    return Expected(signs=above, levels=np.where(above, TOP // 2 + 1 + sure, TOP // 2 - sure).astype(np.uint8))


_SURE: Bytes = np.searchsorted(NEARNESS, np.arange(256), side="right").astype(np.uint8)
