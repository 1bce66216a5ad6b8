"""Randomised response: a device turns signs at random before it sends them (Warner 1965; docs/privacy.md).

What leaves the device is flipped; the device's own network, and what it trains on, is not. A mask must be flipped
once and sent again as it is: the mean of several answers to the same question gives it away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from wire.mask import Signs
from wire.settings import CHANCES, Training

RandomBytes: TypeAlias = Callable[[int], bytes]
WORD_BYTES = 4
CHUNK = 1 << 14  # signs drawn for at once: 64 KB of random bytes, whatever the network's size


def randomise(signs: Signs, training: Training, random_bytes: RandomBytes = os.urandom) -> Signs:
    """Signs as they are sent: each, bool (kept,), turned with `training.flip_chance`, independently.

    Chances are compared as whole numbers, for the last bits of floating-point draws can betray what they hide
    (Mironov, CCS 2012).

    Args:
        signs: as trained, bool (kept,); not changed.
        training: as announced; without a privacy_epsilon the signs are returned as they are.
        random_bytes: the operating system's; seeded in simulations only.
    """
    below = round(training.flip_chance * CHANCES)
    if not below:
        return signs
    sent = signs.copy()
    for at in range(0, signs.size, CHUNK):
        part = sent[at : at + CHUNK]
        part ^= np.frombuffer(random_bytes(part.size * WORD_BYTES), dtype="<u4") < below
    return sent
