"""Which of a round's masks are not counted, because no honest training ends with them.

A mask moves a weight by one vote at most, whatever its device does. What is left to an attacker is many
masks that say the same wrong thing, so two things are looked for:

- A mask that **turns** half of what is agreed, or all but half. Training starts from the announced votes, with the
  more certain signs further from turning: however large its steps are, its mask is more like them than a coin toss.
  Of dithered scores an honest mask turns a fifth at most, and what many turn adds up: the limit is lower.
- A **copy**: two masks whose changes are all but the same. One of them is counted, the first by device id. Of dithered
  scores, where every device has thresholds of its own, two that have half of their changes in common are one.

Both hold even where most masks of a round are hostile, for the first is against what was announced and the
second among any two. How far a mask is from the round's others, in deviations, is *not* used: people who move
unlike everyone else are further from them than many an attacker (docs/robustness.md).

Everything follows from the announced votes and the masks, so a restarted coordinator comes to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from wire.mask import Signs, Votes

Packed: TypeAlias = NDArray[np.uint8]  # signs (kept,) in bytes, the first in the highest bit, zeros at the end

FEWEST = 64  # changes of two masks together, for them to be called copies
ROOM = 1 << 20  # bytes of masks compared at once: 32 MB as numbers
SIGMAS = 4.0  # of randomised response: by so much a device must be beyond a limit

_ONES = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far honest masks go (docs/robustness.md).

    Attributes:
        turned: share of what is agreed that a mask may turn.
        copied: of the changes of two masks together, how much they must be apart.
    """

    turned: float
    copied: float


SIGNS = Limits(turned=0.48, copied=0.1)  # random masks turn 0.5, honest ones at most 0.29; those are 0.35 apart
DITHERED = Limits(turned=0.30, copied=0.5)  # honest ones turn 0.20, and each has thresholds of its own: 0.74 apart


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A mask that is not counted.

    Attributes:
        device: whose.
        kind: "turned" or "copy".
        text: why, for a person.
    """

    device: str
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Devices whose masks are counted, sorted; and what was found about all others, in the same order."""

    counted: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """What any two of n masks' changes come to, as shares of the kept weights; randomised response taken out.

    Attributes:
        devices: whose masks, sorted.
        changes: signs that differ from the announced ones, float64 (n,).
        apart: signs in which two masks differ, float64 (n, n).
        noise: standard deviation of `apart` by randomised response.
    """

    devices: tuple[str, ...]
    changes: NDArray[np.float64]
    apart: NDArray[np.float64]
    noise: float

    @property
    def together(self) -> NDArray[np.float64]:
        """What two masks change, added up, float64 (n, n)."""
        return self.changes[:, None] + self.changes[None, :]

    def copies(self, fewest: float, copied: float) -> list[tuple[int, int]]:
        """Pairs that are less than `copied` apart and change `fewest` together or more: indices, in order."""
        found: list[tuple[int, int]] = []
        for first, change in enumerate(self.changes):  # a row at a time: of thousands, all pairs at once fill memory
            together = change + self.changes[first + 1 :]
            apart = self.apart[first, first + 1 :] + SIGMAS * self.noise
            alike = (apart < copied * together) & (together >= fewest)
            found += [(first, first + 1 + int(second)) for second in np.flatnonzero(alike)]
        return found


def pack(signs: Signs) -> Packed:
    """Signs bool (kept,) -> bytes."""
    return np.packbits(signs)


def unpack(packed: Packed, kept: int) -> Signs:
    """Inverse of `pack`."""
    return np.unpackbits(packed, count=kept).astype(np.bool_)


def turned(previous: Votes, masks: Mapping[str, Packed]) -> dict[str, float]:
    """Share of the announced agreement that every mask turns: of the margins, those of signs it has otherwise.

    0 is the announced signs, 1 their opposite, and about 0.5 a mask that does not know them.
    """
    reference = pack(previous.signs)
    planes = [pack((previous.dissent >> bit & 1).astype(np.bool_)) for bit in range(previous.voters.bit_length())]
    kept, voters = previous.signs.size, previous.voters
    agreed = kept * voters - 2 * int(previous.dissent.sum(dtype=np.int64))
    shares = {}
    for device, mask in masks.items():
        flips = mask ^ reference
        dissent = sum(_ones(flips & plane) << bit for bit, plane in enumerate(planes))
        shares[device] = (voters * _ones(flips) - 2 * dissent) / agreed if agreed else 0.0
    return shares


def compare(previous: Votes, masks: Mapping[str, Packed], flip_chance: float = 0.0) -> Pairs:
    """Compare every two masks."""
    devices = tuple(sorted(masks))
    reference, kept = pack(previous.signs), max(previous.signs.size, 1)
    flips = np.zeros((len(devices), reference.size), dtype=np.uint8)
    for row, device in zip(flips, devices, strict=True):
        row[:] = masks[device] ^ reference
    both = np.zeros((len(devices), len(devices)))
    chunk = max(ROOM // max(len(devices), 1), 64)
    for at in range(0, flips.shape[1], chunk):
        part = np.unpackbits(flips[:, at : at + chunk], axis=1).astype(np.float32)
        both += part @ part.T  # whole numbers far below 2^24: exact in any order
    counts = np.diag(both).copy()
    both *= -2  # from here on signs apart, in place
    both += counts[:, None]
    both += counts[None, :]
    both /= kept
    differ = 2 * flip_chance * (1 - flip_chance)  # chance that one of two signs was turned
    return Pairs(
        devices=devices,
        changes=_without(flip_chance, counts / kept),
        apart=_without(differ, both),
        noise=math.sqrt(differ * (1 - differ) / kept) / (1 - 2 * differ),
    )


def judge(previous: Votes, masks: Mapping[str, Packed], flip_chance: float = 0.0, limits: Limits = SIGNS) -> Judgement:
    """Decide which masks are counted.

    Args:
        previous: as announced with the round.
        masks: by device, in bytes.
        flip_chance: with which devices turn signs at random before sending (`wire.settings.Training`).
        limits: how far honest masks go.
    """
    found: dict[str, Finding] = {}
    limit = limits.turned + SIGMAS * _noise(previous, flip_chance)
    for device, share in turned(previous, masks).items():
        honest = _without(flip_chance, share)
        if honest > limit:
            text = f"{device} is not counted: its mask turns {honest:.0%} of what was agreed, over {limit:.0%}"
            found[device] = Finding(device=device, kind="turned", text=text)
    rest = {device: mask for device, mask in masks.items() if device not in found}
    kept = max(previous.signs.size, 1)
    pairs = compare(previous, rest, flip_chance)
    for one, other in pairs.copies(FEWEST / kept, limits.copied):
        first, second = pairs.devices[one], pairs.devices[other]
        if first in found or second in found:
            continue
        apart, changes = pairs.apart[one, other], pairs.changes[one] + pairs.changes[other]
        text = (
            f"{second} is not counted: its mask is a copy of {first}'s, "
            f"they differ in {max(apart, 0) * kept:.0f} signs and change {changes * kept:.0f}"
        )
        found[second] = Finding(device=second, kind="copy", text=text)
    return Judgement(
        counted=tuple(device for device in sorted(masks) if device not in found),
        findings=tuple(found[device] for device in sorted(found)),
    )


def _ones(packed: Packed) -> int:
    return int(_ONES[packed].sum(dtype=np.int64))


Share = TypeVar("Share", float, NDArray[np.float64])


def _without(chance: float, share: Share) -> Share:
    """The share of bits set, from that after every bit was turned with some chance."""
    return (share - chance) / (1 - 2 * chance)


def _noise(previous: Votes, flip_chance: float) -> float:
    """Standard deviation of an honest mask's turned share by randomised response."""
    margins = np.abs(previous.mean.astype(np.float64))
    total = float(margins.sum())
    spread = float(np.sqrt(flip_chance * (1 - flip_chance) * np.square(margins).sum()))
    return spread / total / (1 - 2 * flip_chance) if total else 0.0
