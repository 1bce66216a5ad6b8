"""Rounds whose masks are dithered bits of scores (`wire.dither`): which settings go with them, and their closing.

The coordinator adds up how far scores have moved. One bit each of a few devices says that with much noise, and every
change that is announced costs bytes on its way to every device. So what is announced stays until the exact mean is
three levels away; what is not announced yet is not lost (error feedback: Seide et al., Interspeech 2014; Karimireddy
et al., ICML 2019). After the first rounds, one counts for less and less, down to a quarter, so that noise is averaged
out (Robbins and Monro, Annals of Mathematical Statistics 22, 1951).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator import robust
from coordinator.steps import Asynchrony
from wire import dither
from wire.errors import ConfigError, Mismatch
from wire.mask import Context, Signs, Votes
from wire.settings import Training

TRAINING = Training(dither=0.3, epsilon=3e-4, learning_rate=0.02)  # the recipe (docs/method.md)
UNITS = 256  # of a level: what is counted in
Remainder = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How mean scores follow what devices send; what was tried is in docs/method.md.

    Attributes:
        hold: levels that the exact mean must be away from the announced one, for that to move.
        settling: rounds that count in full.
        least: that a round counts for, for what devices learn may change.
    """

    hold: int = 3
    settling: int = 20
    least: float = 0.25

    def gain(self, number: int) -> float:
        """What a round counts for: in full at first, then less and less."""
        return max(self.least, min(1.0, self.settling / number))


RULE = Rule()


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The mean scores of a federation.

    Attributes:
        votes: as they are announced.
        remainder: what the exact ones are above that, in 256ths of a level, int16 (kept,).
    """

    votes: Votes
    remainder: Remainder


def recipe(chosen: Mapping[str, Any], *, seen: bool) -> Training:
    """How devices train, and whether they send dithered bits of scores or signs.

    Args:
        chosen: settings by name; others are those that go with `dither`, which is that of the recipe if it is not among
            them and nothing is against it.
        seen: masks are seen one by one, in rounds.

    Raises:
        ConfigError: naming a setting that is out of range.
    """
    dithers = chosen.get("dither", seen and not chosen.get("privacy_epsilon"))
    return replace(TRAINING if dithers else Training(), **chosen)


def check(asynchrony: Asynchrony | None, *, secure_aggregation: bool) -> None:
    """Accept settings for dithered scores.

    Raises:
        ConfigError: if a mask would be counted without what its device was expected to send.
    """
    setting = "secure_aggregation is true" if secure_aggregation else "mode is async" if asynchrony else None
    if setting is not None:
        raise ConfigError(f"{setting}, but training.dither needs rounds whose masks are seen. Set one of them back")


def encode_remainder(remainder: Remainder) -> bytes:
    """As it is kept: two bytes each, the lower one first."""
    return remainder.astype("<i2").tobytes()


def decode_remainder(data: bytes | None, kept: int) -> Remainder:
    """Inverse of `encode_remainder`, int16 (kept,); zeros of None: a run that has not moved yet, or was begun without.

    Raises:
        Mismatch: if it is not of so many weights.
    """
    if data is None:
        return np.zeros(kept, dtype=np.int16)
    if len(data) != 2 * kept:
        raise Mismatch("bytes of a remainder of scores", expected=2 * kept, got=len(data))
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def close(
    previous: Scores, masks: Iterable[tuple[str, Signs, Context]], *, number: int, defend: bool, rule: Rule = RULE
) -> tuple[Scores, tuple[str, ...]]:
    """The mean scores after a round; where all its masks are hostile, nothing changes.

    What `coordinator.robust` looks at are the bits that training has changed, as changes of the announced signs: of
    what a device's thresholds make of its scores, nothing else tells honest ones from others.

    Args:
        previous: as of the round.
        masks: device, its mask, bool (kept,), and what was known of it; the order does not matter.
        number: of the round, from 1.
        defend: leave out what is hostile.
        rule: how scores follow.

    Returns:
        The next scores, and a line for a person about every device that was not counted.

    Raises:
        ValueError: if there is no mask.
    """
    signs = previous.votes.signs
    changed = {device: (robust.pack(signs ^ sent ^ known.signs), known.signs) for device, sent, known in masks}
    if not changed:
        raise ValueError("no masks")
    counted = tuple(changed)
    remarks: tuple[str, ...] = ()
    if defend:
        seen = {device: packed for device, (packed, _) in changed.items()}
        judgement = robust.judge(previous.votes, seen, limits=robust.DITHERED)
        counted, remarks = judgement.counted, tuple(finding.text for finding in judgement.findings)
    if not counted:
        return previous, (*remarks, f"none of {len(changed)} masks was counted, the scores stay as they are")
    moved = np.zeros(signs.size, dtype=np.int32)
    for device in counted:
        packed, expected = changed[device]
        flips = robust.unpack(packed, signs.size) ^ signs
        moved += np.where(expected, -flips.astype(np.int32), flips)
    return move(previous, moved, len(counted), number, rule), remarks


def move(previous: Scores, moved: NDArray[np.int32], devices: int, number: int, rule: Rule = RULE) -> Scores:
    """Mean scores, and how much of them is announced.

    It depends on nothing but its arguments, so a restarted coordinator comes to the same bytes.

    Args:
        previous: before the round.
        moved: over all devices, bits set and not expected minus bits expected and not set, int32 (kept,).
        devices: how many, at least one.
        number: of the round, from 1.
        rule: how scores follow.
    """
    announced = previous.votes.levels.astype(np.int32) * UNITS
    step = np.rint(moved * (rule.gain(number) / devices * dither.TOP * UNITS)).astype(np.int32)
    exact = (announced + previous.remainder + step).clip(0, dither.TOP * UNITS)
    nearest = (exact + UNITS // 2) // UNITS * UNITS
    announced = np.where(np.abs(exact - announced) < rule.hold * UNITS, announced, nearest)
    votes = dither.announce((announced // UNITS).astype(np.uint8))
    return Scores(votes=votes, remainder=(exact - announced).astype(np.int16))
